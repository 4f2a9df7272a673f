# `make train` and `make test` set up their own environment; nothing else is needed than a Python, 3.11 or
# above: `make train PYTHON=python3.13`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready

.DEFAULT_GOAL := help
.PHONY: help install train test lint types imports soak bench docs links clean

help:  ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY)  ## make .venv with the package and the pinned versions it was tested with

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch --editable '.[dev]'
	touch $(READY)

train: $(READY)  ## train the demo model on real cells; ARGS="data.n_hvgs=128" overrides settings
	$(BIN)/python train.py $(ARGS)

test: $(READY)  ## run every test but the slow ones
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --quiet

soak: MEMORY = $(addprefix TMPDIR=,$(wildcard /dev/shm))
soak: $(READY)  ## run the slow soak, fault and scale tests; figures go to docs/reliability.md
	$(MEMORY) SCDIFF_SOAK_REPORT=docs/reliability.md $(BIN)/python -m pytest --quiet --timeout 0 \
		-o tmp_path_retention_policy=none -m soak

lint: $(READY)  ## check style and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/mypy

imports: $(READY)  ## check that imports follow the way of the data
	$(BIN)/lint-imports

bench: $(READY)  ## run the benchmarks, the quick way
	@for script in benchmarks/*.py; do $(BIN)/python $$script --quick; done

$(DOCS_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS_READY)

docs: $(DOCS_READY)  ## build the site of the docs in docs/_build/html; warnings are errors
	rm -rf docs/api
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

links: $(DOCS_READY)  ## check the docs' links to other servers
	$(BIN)/sphinx-build --builder linkcheck --quiet -D nb_execution_mode=off docs docs/_build/links

clean:  ## remove the environment and caches, not data or runs
	rm -rf $(VENV) .venv-lowest .venv-newest docs/_build docs/api .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
