# make run and make test install everything they need; only Python 3.11+ and git are required.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Extra package index for torch, e.g. TORCH_INDEX=https://…/whl/cpu for CPU-only wheels; empty: the default index.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test test-fast test-exhaustive test-stack check docs ui stack stack-down clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## create .venv and install the packages of constraints.txt

# The marker is written last, so a failed installation is repeated.
$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: expected Python 3.11 or newer, found $$("$(PYTHON)" --version 2>&1); set another: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing about 270 packages into $(VENV): three minutes or more the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev,example,augment,marian,shared,kubernetes,stack]'
	@touch $@

run: setup  ## run the pipeline of params.yaml (the example by default), from snapshot to promotion
	@retune run

# pytest's -m for `make test`; `make test MARKS="not stack"` also runs the exhaustive tests.
MARKS := not exhaustive and not stack
test: setup  ## all tests except exhaustive and stack
	@python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m "$(MARKS)"

test-exhaustive: setup  ## slow tests: every fault in every gate, every model family, long end-to-end runs
	@python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m exhaustive

test-stack: setup  ## the shared stack: PostgreSQL, S3, both servers, two workers; scheduled runs, migration, restore
	@python -m pytest -q -m stack

test-fast: setup  ## tests of less than half a second each
	@python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m "not slow and not exhaustive and not stack"

check: setup  ## linters, types, import rules, wiring
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports
	@codespell
	@python -m pytest -q tests/test_wiring.py

docs: setup  ## build the documentation as a searchable site in var/docs
	@sphinx-build -q -W --keep-going -b html -d var/docs/.doctrees docs var/docs
	@echo "var/docs/index.html"

ui: setup  ## MLflow and Prefect in the browser, on loopback, over var/
	@python -m infra.ui

stack: setup  ## the shared stack on this machine in the background, over var/stack; needs PostgreSQL's programs
	@python -m infra.local up

stack-down: setup  ## stop the shared stack
	@python -m infra.local down

# Listed by name, so that your own files beside them are kept: models/NAME with params.yaml, notes in reports/, tables in data/.
clean:  ## remove the outputs of stages and runs; keep .venv, the registry in var/ and your files
	rm -rf data/validated data/prepared models/tuned models/trained reports/evaluation
	rm -f reports/index.html reports/verdict.md reports/MODEL_CARD.md reports/MODEL_CARD.html reports/verdict.json
	@rmdir models reports 2>/dev/null || true
