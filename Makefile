# Two commands on a fresh machine with only Python and make: `make serve` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help serve test check install format openapi requirements clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

serve: .venv/serve ## Serve the shipped model; HOST, PORT and SERVICE_* are respected
	@SERVICE_HOST=$${HOST:-$${SERVICE_HOST:-127.0.0.1}} SERVICE_PORT=$${PORT:-$${SERVICE_PORT:-8000}} \
		exec $(BIN)/python -m service serve

test: .venv/all ## Run the whole test suite; ARGS are passed on to pytest
	$(BIN)/python -m pytest $(ARGS)

check: .venv/all ## Lint, check the format and the types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

install: .venv/all ## Install everything: serving, training, the client, tests

format: .venv/all ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

openapi: .venv/all ## Write docs/openapi.json anew
	$(BIN)/python -c 'import json; from service.app import create_app; from service.settings import Settings; \
		print(json.dumps(create_app(Settings()).openapi(), indent=2))' > docs/openapi.json

COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make requirements' $(UPGRADE)

requirements: .venv/all ## Pin the requirements anew from pyproject.toml; UPGRADE=--upgrade takes new releases
	$(COMPILE) --extra client --extra tracing --extra training --extra test --extra dev \
		--output-file requirements/all.txt
	$(COMPILE) --constraint requirements/all.txt --output-file requirements/serve.txt
	$(COMPILE) --extra cuda --extra tracing --constraint requirements/all.txt --output-file requirements/serve-cuda.txt
	echo onnxruntime | $(COMPILE) - --extra tracing --constraint requirements/all.txt --no-emit-package onnxruntime-gpu \
		--output-file requirements/serve-cpu.txt

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is %s; try make PYTHON=python3.12" \
		% sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/serve: requirements/serve.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

.venv/all: requirements/all.txt requirements/serve.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@ .venv/serve

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
