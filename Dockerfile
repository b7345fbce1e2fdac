# Two images: `operator` (no torch) and `trainer` (head and workers of a job).
#
#   docker build --target operator -t gentrain-operator .
#   docker build --target trainer  -t gentrain-trainer  .
#
# Neither runs as root (operator 65532, trainer 1000), and nothing needs to be writable but /tmp (and /dev/shm for Ray). Dependencies, pinned
# by constraints.txt, are one layer, the project is a thin one above it. Everything is compiled to bytecode here: on a read-only root no
# process could keep what it compiles, and each would take seconds to start. Indexes and certificates other than the defaults come by pip's
# and uv's usual variables and mounts at build time; nothing of them stays in the image.
#
# Each image says at /opt/gentrain/sbom what it holds (sbom.spdx.json) and what it was built from (provenance.json; docs/how-to/images.md).
#
# The wheel is copied rather than mounted: buildah 1.28 mounts nothing of a stage that it found in its cache.
#
# Both bases are Debian 12 with Python 3.11, so that what one stage installs runs in the other. The operator's has no shell and no pip.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG OPERATOR_IMAGE=gcr.io/distroless/python3-debian12:nonroot

# What each layer needs, and nothing else of the two files: a setting of some tool, or one more package, shall not make gigabytes anew.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /requirements
COPY constraints.txt pyproject.toml ./
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; extras = project["optional-dependencies"]; \
    pins = [line for line in open("constraints.txt").read().split() if "==" in line]; \
    pinned = lambda *names: [pin for pin in pins if pin.startswith(tuple(name + "==" for name in names))]; \
    wanted = lambda *names: [*project["dependencies"], *(one for name in names for one in extras[name])]; \
    files = {"tools": pinned("uv", "setuptools", "wheel", "packaging"), "torch": pinned("torch", "ninja", "packaging", "psutil"), \
             "family": [pin for pin in pins if pin.startswith(("torch==", "triton==", "nvidia-", "cuda-"))], \
             "operator": wanted("operator"), "trainer": wanted("train", "head", "cloud", "report")}; \
    [open(name + ".txt", "w").write("\n".join(lines) + "\n") for name, lines in files.items()]' \
 && touch -d @0 *.txt

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /opt/gentrain
COPY --from=requirements /requirements/tools.txt ./
RUN pip install --no-cache-dir -r tools.txt

FROM base AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY trainjobs trainjobs
RUN uv build --wheel --no-build-isolation --out-dir /wheels .

FROM base AS operator-packages
COPY --from=requirements /requirements/constraints.txt /requirements/operator.txt ./
# Out go the client's asynchronous copy with what only it needs, and the bytecode of its models: the operator reads plain JSON and never
# imports them. Together that is 100 of 170 MB.
RUN --mount=type=cache,target=/tmp/.cache/uv \
    uv pip install --target /packages --link-mode copy --compile-bytecode --constraint constraints.txt -r operator.txt \
 && cd /packages \
 && rm -r bin kubernetes/aio aiohttp aiohappyeyeballs aiosignal frozenlist multidict propcache yarl \
 && find kubernetes/client/api kubernetes/client/models -name __pycache__ -exec rm -r {} +

FROM operator-packages AS operator-project
COPY --from=wheel /wheels /wheels
RUN uv pip install --target /project --no-cache --link-mode copy --compile-bytecode --no-deps /wheels/*.whl
COPY .ci/sbom.py .ci/provenance.py /sbom/
ARG PYTHON_IMAGE
ARG OPERATOR_IMAGE
ARG SOURCE
ARG BUILDER
RUN python3 /sbom/sbom.py --name gentrain-operator --out /sbom --path /packages --path /project --file constraints.txt --subject /wheels/*.whl \
    --base PYTHON_IMAGE=${PYTHON_IMAGE} --base OPERATOR_IMAGE=${OPERATOR_IMAGE} --source "${SOURCE}" --builder "${BUILDER}"

FROM ${OPERATOR_IMAGE} AS operator
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/gentrain/project:/opt/gentrain/packages
COPY --from=operator-packages /packages /opt/gentrain/packages
COPY --from=operator-project /project /opt/gentrain/project
COPY --from=operator-project /sbom/sbom.spdx.json /sbom/provenance.json /opt/gentrain/sbom/
USER 65532:65532
ENTRYPOINT ["python3", "-m", "gentrain_operator.main"]
CMD ["--help"]

FROM base AS trainer
# A pod whose root is read-only never writes bytecode, so every step leaves it: torch's import takes 8 s without, 2 s with it.
ENV UV_COMPILE_BYTECODE=1
# g++ stays in the image: DeepSpeed and torch.compile build kernels when a job asks for them.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=requirements /requirements/torch.txt /requirements/family.txt ./
RUN --mount=type=cache,target=/tmp/.cache/uv \
    uv pip install --system --link-mode copy --constraint family.txt -r torch.txt
# torch first, because DeepSpeed's setup looks at it. Of DeepSpeed's operations only the all-reduce in shared memory is built, which CPU
# workers would else compile at their start, for a minute. It is built for any x86-64 or Arm machine and chooses its kernels as it runs.
COPY --from=requirements /requirements/constraints.txt /requirements/trainer.txt ./
RUN --mount=type=cache,target=/tmp/.cache/uv \
    DS_ACCELERATOR=cpu DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 \
    uv pip install --system --no-cache --no-build-isolation --constraint constraints.txt deepspeed \
 && uv pip install --system --link-mode copy --constraint constraints.txt -r trainer.txt
COPY --from=wheel /wheels /opt/gentrain/wheels
RUN uv pip install --system --no-cache --no-deps /opt/gentrain/wheels/*.whl
COPY .ci/sbom.py .ci/provenance.py sbom/
ARG PYTHON_IMAGE
ARG SOURCE
ARG BUILDER
RUN python3 sbom/sbom.py --name gentrain-trainer --out sbom --file constraints.txt --subject wheels/*.whl \
    --base PYTHON_IMAGE=${PYTHON_IMAGE} --source "${SOURCE}" --builder "${BUILDER}"
USER 1000:1000
CMD ["gtj", "--help"]
