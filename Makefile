# On a new machine with Python and make: `make serve`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
# The packages that serve: all of them if they are installed; else ONNX Runtime for CUDA, which is
# 270 MB larger, only if there is an NVIDIA driver.
SERVE := $(if $(wildcard .venv/all),all,$(shell \
	$(PYTHON) -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null && echo serve || echo serve-cpu))

.DEFAULT_GOAL := help
.PHONY: help serve client test test-fast check install format openapi torture mutants bench soak fuzz audit sbom \
	requirements clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

serve: .venv/$(SERVE) ## Serve the models; set PORT and SERVICE_* to change the defaults
	@SERVICE_PORT=$${SERVICE_PORT:-$$PORT} exec $(BIN)/python -m service serve

client: .venv/client ## Install the packages of the client alone
	@echo 'Ready. Try: $(BIN)/python -m service.client --help'

PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: .venv/all ## Run the tests, two files at a time; ARGS go to pytest
	$(PYTEST) $(ARGS)

FAST = $(addprefix tests/service/,api imaging inference machine telemetry) \
	$(addprefix --ignore=tests/service/imaging/,test_files.py test_item_on_black.py)

test-fast: .venv/all ## Run the quick tests in a minute: no servers, no training; ARGS go to pytest
	KERAS_BACKEND=numpy $(PYTEST) $(FAST) $(ARGS)

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

mutants: .venv/mutants ## Change the code in EACH=5 places a module; write which changes no test notices
	$(BIN)/python -m tests.benchmarks.mutants --each $(or $(EACH),5) --output docs/reliability.md

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

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make requirements' $(UPGRADE)
# Print the requirements of some extras, without those of the client.
EXTRAS = $(BIN)/python -c 'import sys, tomllib; \
	extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*(line for name in sys.argv[1:] for line in extras[name]), sep="\n")'

requirements: .venv/all ## Write requirements/*.txt; UPGRADE=--upgrade takes new releases
	$(COMPILE) pyproject.toml --extra serve --extra heic --extra jax --extra tracing --extra training --extra test \
		--extra dev --output-file requirements/all.txt
	$(COMPILE) pyproject.toml --constraint requirements/all.txt --output-file requirements/client.txt
	$(EXTRAS) serve | $(COMPILE) - --constraint requirements/all.txt --output-file requirements/serve.txt
	$(EXTRAS) serve cuda tracing | $(COMPILE) - --constraint requirements/all.txt \
		--output-file requirements/serve-cuda.txt
	{ $(EXTRAS) serve tracing; echo onnxruntime; } | $(COMPILE) - --constraint requirements/all.txt \
		--no-emit-package onnxruntime-gpu --output-file requirements/serve-cpu.txt
	$(EXTRAS) serve fuzz | $(COMPILE) - --constraint requirements/all.txt --output-file requirements/fuzz.txt
	$(EXTRAS) serve mutants | $(COMPILE) - --constraint requirements/all.txt --output-file requirements/mutants.txt

INSTALL = $(BIN)/python -m pip install --quiet --require-hashes -r $<
# onnxruntime and onnxruntime-gpu install the same module: one goes before the other comes.
UNINSTALL = $(BIN)/python -m pip uninstall -qq --yes

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is %s; try make PYTHON=python3.12" \
		% sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/client: requirements/client.txt | .venv/bin/python
	$(INSTALL)
	@touch $@

.venv/serve-cpu: requirements/serve-cpu.txt | .venv/bin/python
	$(UNINSTALL) onnxruntime-gpu
	$(INSTALL)
	@rm -f .venv/serve && touch $@

.venv/serve: requirements/serve.txt | .venv/bin/python
	$(UNINSTALL) onnxruntime
	$(INSTALL)
	@rm -f .venv/serve-cpu && touch $@

.venv/all: requirements/all.txt | .venv/bin/python
	$(UNINSTALL) onnxruntime
	$(INSTALL)
	@touch $@

.venv/fuzz: requirements/fuzz.txt | .venv/all
	$(INSTALL)
	@touch $@

.venv/mutants: requirements/mutants.txt | .venv/all
	$(INSTALL)
	@touch $@

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis mutants
