# make figures   regenerate every figure that needs no training    (DATA=/path/to/imagenet, or DATA=imagenette)
# make test      lint, types and the default tests
# make test-all  the slow tests too

PYTHON ?= python3
BIN := .venv/bin
DATA ?=
export MPLBACKEND := Agg

.PHONY: figures test test-all clean
figures: .venv/reproduce
	$(BIN)/python -m reproduce all $(if $(DATA),--data "$(DATA)")

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest

test-all: test
	$(BIN)/python -m pytest -m slow

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/reproduce: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[reproduce]"
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[reproduce,dev]"
	touch $@ .venv/reproduce

clean:
	rm -rf .venv figures/samples build *.egg-info
