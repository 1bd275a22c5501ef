# make figures   regenerate every figure that needs no training    (DATA=/path/to/imagenet, or DATA=imagenette)
# make test      lint, types and the default tests
# make test-all  the slow tests too

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
DATA ?=
export MPLBACKEND := Agg
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: figures test test-all clean
.NOTPARALLEL:

figures: .venv/reproduce
	$(BIN)/python -m reproduce all $(if $(DATA),--data "$(DATA)")

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: test
	$(BIN)/python -m pytest -m slow

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv || (echo "On Debian: apt install python3-venv" && exit 1)
	touch $@

.venv/reproduce: pyproject.toml | .venv/created
	@echo "Installing PyTorch and the rest into .venv: some gigabytes, some minutes."
	$(PIP) --quiet -e ".[reproduce]"
	touch $@

.venv/dev: pyproject.toml | .venv/created
	@echo "Installing PyTorch, the tests' oracles and the rest into .venv: some gigabytes, some minutes."
	$(PIP) --quiet -e ".[reproduce,dev]"
	touch $@ .venv/reproduce

clean:
	rm -rf .venv figures/samples build *.egg-info
