# Every target makes its own environment first (.venv, once, whatever the target) and says what it downloads before it does.
# `make PYTHON=python3.12` names the interpreter, `make GENTRAIN_TORCH=<wheel or requirement>` another build of torch.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# Two files at a time leave two cores idle a quarter of the time, while they wait for servers, disks and processes that are to hang: so it is
# three, in the order of tests/dearest.py. Fast ones are busy all the time.
SLOW ?= -n 3 --dist loadfile --no-loadscope-reorder
FAST ?= -n 2 --dist loadfile
# Compiled modules and pytest's rewritten ones are kept, whatever the shell says: a third of the time of collecting tests, in each process.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test slow again cluster cluster-down e2e check lint types contracts fast generate sbom bench campaign campaign-silence constraints clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

install:  ## the environment, .venv
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 to 3.13 with venv is needed (make PYTHON=/path/to/python3)" >&2; exit 1; }
	@$(PYTHON) .ci/install.py

demo: install  ## train a model that draws what a text asks for, on two workers, a few minutes on two cores, and ask it
	$(BIN)/gtj run -f manifests/samples/diffusion-shapes.yaml
	$(BIN)/gtj sample diffusion-shapes --prompt "a red circle" --count 16 --out gentrain-runs/a-red-circle
	@echo "A red circle:     gentrain-runs/a-red-circle/grid.png"
	@echo "What it draws:    gentrain-runs/diffusion-shapes/samples/ (the newest picture)"
	@echo "The whole story:  gentrain-runs/diffusion-shapes/report.html"

# Its parts run side by side, two at a time; each one's output comes in one piece.
check: install  ## ruff, mypy --strict, import contracts, fast tests: about a minute
	@$(MAKE) --no-print-directory -j 2 -k -O lint types contracts fast

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

contracts:
	$(BIN)/lint-imports

fast:
	$(BIN)/python -m pytest -m "not slow" -rsfE $(FAST)

test: install  ## everything that can run on this machine, fast tests first; skipped ones with their reason
	@$(MAKE) --no-print-directory fast
	@$(MAKE) --no-print-directory slow

slow: install  ## the second half of `make test`, where `make check` has just passed
	$(BIN)/python -m pytest -m slow -rsfE $(SLOW)

again: install  ## the slow tests that failed at the last run, one at a time
	$(BIN)/python -m pytest -m slow --last-failed --last-failed-no-failures none -rsfE

# KUBECONFIG, from the environment or the command line, names a cluster of your own; without it there is one node on this machine (Linux, root).
cluster: install  ## a one-node Kubernetes cluster on this machine with the project's images, minutes the first time
ifdef KUBECONFIG
	kubectl --kubeconfig $(KUBECONFIG) get nodes
else
	$(BIN)/python -m tests.cluster.images check
	$(BIN)/python -m tests.cluster.node up
	$(BIN)/python -m tests.cluster.images
endif

cluster-down: install  ## take it down, also what is left of one; its images stay (python -m tests.cluster.node clear)
ifndef KUBECONFIG
	$(BIN)/python -m tests.cluster.node down
endif

e2e: install  ## end-to-end tests on it, with the KubeRay operator that GENTRAIN_KUBERAY_IMAGE holds, or that KUBECONFIG's cluster has
	GENTRAIN_E2E=$(or $(KUBECONFIG),node) $(BIN)/python -m pytest tests/e2e -m "slow or not slow" -v -rsfE --durations=0 $(PYTEST)
	$(BIN)/python -m bench.table

generate: install  ## files made from the models: JSON schema and reference pages
	$(BIN)/python -m trainjobs.cli.generate
	$(BIN)/python -m tests.techniques

sbom: install  ## what the environment holds (SPDX 2.3) and what it was built from (SLSA): build/sbom/
	$(BIN)/python .ci/sbom.py --file constraints.txt --file pyproject.toml

bench: install  ## benchmarks: JSON in bench/results/, table in docs/benchmarks.md (NAMES="first-step startup" for some)
	$(BIN)/python -m bench.run $(NAMES)

campaign: install  ## 1,000 runs of faults on every store, an hour or two: JSON in bench/results/, table in docs/campaign.md (PLACES="memory moto" for some)
	$(BIN)/python -m tests.stores.campaign $(PLACES)

campaign-silence: install  ## every field of a manifest changed between two attempts, a few minutes: is it told? table in docs/silence.md
	$(BIN)/python -m tests.silence.campaign --page

# torch stays where the tests of equivalence hold; move it by hand, with DeepSpeed and Ray.
constraints: install  ## pin the newest versions that pyproject.toml allows, torch apart
	grep '^#' constraints.txt >constraints.new
	printf 'setuptools\nwheel\nuv\ntorch==2.13.0\n' | DS_BUILD_OPS=0 $(BIN)/uv pip compile pyproject.toml - --all-extras \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --strip-extras --no-header --no-annotate -q >>constraints.new
	mv constraints.new constraints.txt

clean:  ## remove the environment and what tests and tools left; never gentrain-runs/
	rm -rf .venv build dist *.egg-info operator/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
