# Two commands do everything: `make up` runs the product, `make test` checks it.
# Only Python 3.11 or newer, make and a network that reaches the package registries are needed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.8
# One more than the two cores of CI: tests wait for servers, clocks and disks.
WORKERS ?= 3
# Empty is off: a program that compiles all it imports anew takes three times as long to start.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(UV) pip install --quiet --python $(BIN)/python --build-constraints build-constraints.txt

.PHONY: help up install develop test slow lint format proto clients lock bench fuzz faults clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

up: install ## run everything on http://127.0.0.1:8080, data in .strongroom; ARGS="--port 8090" for another port
	@$(BIN)/strongroom up $(ARGS)

install: $(VENV)/installed ## only make the environment: .venv/bin/strongroom

develop: $(VENV)/developed ## the environment with everything the tests need

test: develop lint ## check code and contract, then run all tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered

slow: develop ## the slow tests alone
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m slow

lint: develop ## ruff, mypy, buf and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --root build/generated
	$(BIN)/buf lint build/generated/build/image.binpb --config buf.yaml --path strongroom
	$(BIN)/buf format --diff --exit-code protos

format: develop ## rewrite code and protos in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

proto: develop ## regenerate stubs and descriptor set from protos/
	$(BIN)/python protos/generate.py

clients: proto ## regenerate the asynchronous and the TypeScript client
	$(BIN)/python clients/make_async.py
	$(BIN)/python clients/make_typescript.py

lock: $(UV) ## resolve the dependencies anew
	$(UV) pip compile $(LOCK_OPTIONS) --extra server pyproject.toml -o requirements.lock
	$(UV) pip compile $(LOCK_OPTIONS) --all-extras --group dev --constraint requirements.lock pyproject.toml -o requirements-dev.lock
	$(UV) pip compile $(LOCK_OPTIONS) $(IMAGE) --constraint requirements.lock pyproject.toml -o deploy/requirements.lock
IMAGE := --extra server --extra aws --extra azure --extra gcp --extra vault --extra otel
LOCK_OPTIONS := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

bench: develop ## measure, and write bench/RESULTS.md and its plots
	$(BIN)/python -m bench

fuzz: develop ## ten minutes of fuzzing; what breaks a reader is kept in build/fuzz
	$(BIN)/python -m tests.fuzz

faults: develop ## five minutes of kills, cuts and standstills under load; what was acknowledged must be there
	$(BIN)/python -m tests.faults

clean: ## remove the environment and everything built; data in .strongroom stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Strongroom needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/installed: $(UV) requirements.lock pyproject.toml
	@echo "Installing what the product needs"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed requirements-dev.lock
	@echo "Installing what the tests need"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
