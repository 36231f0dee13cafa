# make run and make test do all set-up themselves: a fresh machine needs Python 3.11+ and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where torch comes from: empty for the default index; e.g. TORCH_INDEX=https://…/whl/cpu for CPU-only wheels.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test test-fast test-exhaustive test-stack check docs ui stack stack-down clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv and install everything from constraints.txt

# Installed into a fresh venv; the marker is written last, so a broken installation is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: expected Python 3.11 or newer, found $$("$(PYTHON)" --version 2>&1); name another: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing about 270 packages into $(VENV): three minutes or more the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev,example,augment,marian,shared,kubernetes,stack]'
	@touch $@

run: setup  ## the main job: snapshot, validate, … promote, on the example or on what params.yaml says
	@retune run

# Which tests `make test` runs, as pytest's -m; `make test MARKS="not stack"` runs the exhaustive ones too, in one piece.
MARKS := not exhaustive and not stack
test: setup  ## all tests but the exhaustive ones
	@python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m "$(MARKS)"

test-exhaustive: setup  ## every fault in every gate, every family of models, whole stories whose parts have tests
	@python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m exhaustive

test-stack: setup  ## the shared stack: PostgreSQL, S3, both servers, two workers; scheduled runs, migration, restore
	@python -m pytest -q -m stack

test-fast: setup  ## the tests that take seconds
	@python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m "not slow and not exhaustive and not stack"

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

stack-down: setup  ## end it
	@python -m infra.local down

# By name, so that a person's files beside them stay: models/NAME with params.yaml, notes in reports/, tables in data/.
clean:  ## remove what stages and runs made, but neither .venv nor the registry in var/ nor what you wrote
	rm -rf data/validated data/prepared models/tuned models/trained reports/evaluation
	rm -f reports/index.html reports/verdict.md reports/MODEL_CARD.md reports/MODEL_CARD.html reports/verdict.json
	@rmdir models reports 2>/dev/null || true
