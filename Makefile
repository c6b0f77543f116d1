# Everything runs in .venv, made from the lock (constraints.txt) on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test check bench bench-gpu ui lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the locked versions.

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,deploy]' --constraint constraints.txt
	@touch $@

run: $(READY) ## Run the whole pipeline on synthetic chest images, about 5 minutes on 2 cores with bfloat16, 15 without.
	$(BIN)/python flows/main.py --config configs/demo.yaml

test: $(READY) ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## Lint, types, import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## Measure speed side by side with other ways; writes benchmarks/README.md.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' --constraint constraints.txt
	$(BIN)/python -m benchmarks

bench-gpu: $(READY) ## Test, measure and run on this machine's GPU; adds to benchmarks/README.md.
	benchmarks/gpu.sh

ui: $(READY) ## Start a Prefect server, a worker and the deployments on this machine, until Ctrl-C.
	$(BIN)/python -m deployments ui

lock: ## Renew constraints.txt from pyproject.toml; needs uv.
	uv pip compile --universal --python-version 3.11 --all-extras --no-header --no-annotate pyproject.toml -o constraints.txt

clean: ## Remove .venv and the caches of tools; results in outputs/ stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
