# `make help` lists what there is. Every target sets up what it needs, from a clean checkout with Python and make.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip
PACKAGES := retention_platform producer
SOURCES := $(PACKAGES) tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help up test lint format bench soak docs screenshots lock audit clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: Python 3.10 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

.venv/.run: requirements.lock pyproject.toml | .venv/bin/uv
	$(UV) install --quiet --python $(BIN)/python --requirement requirements.lock
	$(UV) install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	$(UV) install --quiet --python $(BIN)/python --requirement requirements-dev.lock
	@touch $@

up: .venv/.run ## start the whole stack on this machine; Ctrl-C stops it and keeps the data
	@exec $(BIN)/retention up $(ARGS)

test: .venv/.dev ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/.dev ## check style, types and SQL formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/sqlfmt --check --quiet dbt_project/models dbt_project/macros dbt_project/tests

format: .venv/.dev ## format Python and SQL
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/sqlfmt --quiet dbt_project/models dbt_project/macros dbt_project/tests

bench: .venv/.dev ## measure speed, side by side with alternatives
	$(BIN)/python -m benchmarks $(ARGS)

soak: .venv/.dev ## minutes of events while every part fails, then a proof that each counts once
	@$(BIN)/python -m tests.soak $(ARGS)

docs: .venv/.run ## write dbt's documentation of every table and column, with lineage, as one HTML file
	@$(BIN)/retention docs $(ARGS)

screenshots: .venv/.dev ## make the README's pictures again, of a stack of their own; needs a Chromium
	@$(BIN)/python -m tests.screenshots

lock: .venv/bin/uv ## pin the newest versions that pyproject.toml allows
	$(UV) compile pyproject.toml $(LOCK_FLAGS) --upgrade --output-file requirements.lock
	$(UV) compile pyproject.toml $(LOCK_FLAGS) --extra dev --constraint requirements.lock \
		--upgrade --output-file requirements-dev.lock
LOCK_FLAGS := --quiet --universal --python-version 3.10 --no-emit-index-url --no-header --no-annotate

audit: .venv/.dev ## look for known vulnerabilities in the pinned versions
	@$(BIN)/python -m tests.audit

clean: ## remove the virtual environment and caches; the state folder .retention stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dbt_project/target *.egg-info
