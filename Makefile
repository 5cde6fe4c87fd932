# Every target prepares what it needs: see scripts/setup.

VENV := .venv/bin
WORKERS ?= 2
MINUTES ?= 10
PYTEST := $(VENV)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup setup-run demo test test-all test-export fuzz bench docs pytest lint clean

help:
	@echo "make demo         one real BERT encoder layer through generated RTL, bit for bit"
	@echo "make test         lint and tests (what CI runs)"
	@echo "make test-all     the same with the slow tests: every size, place and route"
	@echo "make test-export  ONNX graphs of PyTorch's exporters, families of transformers; installs both"
	@echo "make fuzz         random machines and programs against the simulator, MINUTES=10"
	@echo "make bench        every figure of docs/performance.md, an hour or two"
	@echo "make docs         the documentation as a site, build/site/index.html"
	@echo "make lint         ruff and mypy only"
	@echo "make setup        prepare the machine and .venv, nothing else"
	@echo "make clean        remove .venv, caches of the tools and build folders"

setup:
	@scripts/setup test

setup-run:
	@scripts/setup run

demo: setup-run
	$(VENV)/tilewright demo $(ARGS)

lint: setup
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy

# Lint first: it is quick and tells most.
test: lint
	$(PYTEST) $(ARGS)

test-all: lint
	$(PYTEST) -m "slow or not slow" $(ARGS)

fuzz: setup
	$(VENV)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

bench:
	@scripts/setup bench
	$(VENV)/tilewright bench --page docs/performance.md $(ARGS)

test-export:
	@scripts/setup export
	$(PYTEST) -m "slow or not slow" tests/sw/test_models_exported.py tests/sw/test_families_exported.py $(ARGS)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build

pytest: setup
	$(PYTEST) $(ARGS)

clean:
	rm -rf .venv .venv-bench .setup.lock build dist sim_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find hw sim sw synth tests -type d -name __pycache__ -prune -exec rm -rf {} +
