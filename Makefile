# On a new machine with Python and make: `make serve`, `make test`.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast check install format openapi torture bench soak fuzz audit sbom requirements clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

serve: .venv/serve ## Serve the model; set HOST, PORT and SERVICE_* to change the defaults
	@SERVICE_HOST=$${HOST:-$${SERVICE_HOST:-127.0.0.1}} SERVICE_PORT=$${PORT:-$${SERVICE_PORT:-8000}} \
		exec $(BIN)/python -m service serve

test: .venv/all ## Run the tests; ARGS go to pytest
	$(BIN)/python -m pytest $(ARGS)

FAST = tests/service tests/docs tests/models tests/test_architecture.py tests/training/data

test-fast: .venv/all ## Run the tests that take a minute: no servers, no training; ARGS go to pytest
	KERAS_BACKEND=numpy $(BIN)/python -m pytest $(FAST) $(ARGS)

check: .venv/all ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

install: .venv/all ## Install everything: service, client, training, tests

format: .venv/all ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

openapi: .venv/all ## Write docs/openapi.json
	$(BIN)/python -c 'import json; from service.app import create_app; from service.settings import Settings; \
		print(json.dumps(create_app(Settings()).openapi(), indent=2))' > docs/openapi.json

torture: .venv/all ## Attack a real server for SECONDS=300 and write docs/reliability.md
	$(BIN)/python -m tests.benchmarks.torture --seconds $(or $(SECONDS),300) --output docs/reliability.md

bench: .venv/all ## Write docs/performance.md: the service and a tutorial's app, SECONDS=4 per cell
	$(BIN)/python -m tests.benchmarks.bench --seconds $(or $(SECONDS),4) --output docs/performance.md

soak: .venv/all ## Load the service for SECONDS=3600; write its memory use into docs/performance.md
	$(BIN)/python -m tests.benchmarks.soak --seconds $(or $(SECONDS),3600) --output docs/performance.md

fuzz: .venv/fuzz ## Fuzz the form parser and the image decoder, each for SECONDS=600
	@mkdir -p build/fuzz/form build/fuzz/image
	$(BIN)/python -m tests.fuzz.form --seed build/fuzz/form $(SEEDS)
	cp $(SEEDS) build/fuzz/image
	for target in form image; do \
		$(BIN)/python -W ignore -m tests.fuzz.$$target -max_total_time=$(or $(SECONDS),600) -timeout=10 \
			-rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/$$target || exit 1; \
	done

SEEDS = $(filter-out %.py,$(wildcard tests/data/faults/*.*)) $(wildcard tests/data/fashion-mnist-sample/*.png)

audit: .venv/all ## Check the pinned packages for known vulnerabilities
	for file in serve serve-cpu serve-cuda; do \
		$(BIN)/uv tool run pip-audit --strict --require-hashes --disable-pip -r requirements/$$file.txt || exit 1; \
	done

sbom: .venv/all ## Write build/sbom.json: the packages of the service, in CycloneDX format
	@mkdir -p build
	$(BIN)/uv tool run --from cyclonedx-bom cyclonedx-py requirements requirements/serve-cpu.txt \
		--pyproject pyproject.toml --output-reproducible --output-file build/sbom.json

COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make requirements' $(UPGRADE)

requirements: .venv/all ## Write requirements/*.txt; UPGRADE=--upgrade takes new releases
	$(COMPILE) --extra client --extra heic --extra jax --extra tracing --extra training --extra test --extra dev \
		--output-file requirements/all.txt
	$(COMPILE) --constraint requirements/all.txt --output-file requirements/serve.txt
	$(COMPILE) --extra cuda --extra tracing --constraint requirements/all.txt --output-file requirements/serve-cuda.txt
	echo onnxruntime | $(COMPILE) - --extra tracing --constraint requirements/all.txt --no-emit-package onnxruntime-gpu \
		--output-file requirements/serve-cpu.txt
	$(COMPILE) --extra fuzz --constraint requirements/all.txt --output-file requirements/fuzz.txt

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

.venv/fuzz: requirements/fuzz.txt | .venv/all
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
