# Two images: `operator` (no torch) and `trainer` (head and workers of a job).
#
#   docker build --target operator -t gentrain-operator .
#   docker build --target trainer  -t gentrain-trainer  .
#
# Both run as uid 1000 and need nothing to be writable but /tmp (and /dev/shm for Ray). Dependencies, pinned by constraints.txt, are one
# layer, the project is a thin one above it. Everything is compiled to bytecode here: on a read-only root no process could keep what it
# compiles, and each would take seconds to start. Indexes and certificates other than the defaults come by pip's and uv's usual variables
# and mounts at build time; nothing of them stays in the image.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /opt/gentrain
COPY constraints.txt pyproject.toml ./
RUN pip install --no-cache-dir --constraint constraints.txt uv setuptools wheel

FROM base AS wheel
COPY README.md LICENSE ./
COPY operator operator
COPY trainjobs trainjobs
RUN uv build --wheel --no-build-isolation --out-dir /wheels .

FROM base AS operator
RUN --mount=type=cache,target=/tmp/.cache/uv \
    uv pip install --system --link-mode copy --compile-bytecode --constraint constraints.txt -r pyproject.toml --extra operator
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    uv pip install --system --no-cache --compile-bytecode --no-deps /wheels/*.whl
USER 1000:1000

FROM base AS trainer
# g++ stays in the image: DeepSpeed and torch.compile build kernels when a job asks for them.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# torch first, because DeepSpeed's setup looks at it. Of DeepSpeed's operations only the all-reduce in shared memory is built, which CPU
# workers would else compile at their start, for a minute. It is built for any x86-64 or Arm machine and chooses its kernels as it runs.
RUN --mount=type=cache,target=/tmp/.cache/uv \
    uv pip install --system --link-mode copy --constraint constraints.txt torch ninja packaging psutil \
 && DS_ACCELERATOR=cpu DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 \
    uv pip install --system --no-cache --no-build-isolation --constraint constraints.txt deepspeed \
 && uv pip install --system --link-mode copy --compile-bytecode --constraint constraints.txt \
    -r pyproject.toml --extra train --extra cloud --extra report
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    uv pip install --system --no-cache --compile-bytecode --no-deps /wheels/*.whl
USER 1000:1000
CMD ["gtj", "--help"]
