# make figures   regenerate every figure that needs no training    (DATA=/path/to/imagenet, or DATA=imagenette)
# make test      lint, types and the default tests
# make test-all  the slow tests too
# make explore   the live page: touch a network, and it answers    (IMAGE=my_cat.jpg)
# make docs      the documentation site, in site/
# make site      documents, gallery, lectures and atlas in site/, for any static server
#
# TORCH=cpu with any of them, in a fresh clone: PyTorch without CUDA, hundreds of megabytes instead of gigabytes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
DATA ?=
IMAGE ?=
TORCH ?=
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH) is unknown: use TORCH=cpu, or leave it out)
endif
# PyTorch's own index. Tested: the commands that make runs (tests/test_packaging.py). Not tested: the download.
CPU_INDEX := https://download.pytorch.org/whl/cpu
INSTALL_TORCH = $(if $(TORCH),$(PIP) --quiet torch torchvision --index-url $(CPU_INDEX))
SIZE = $(if $(TORCH),hundreds of megabytes,some gigabytes)
export MPLBACKEND := Agg
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: figures explore test test-all docs site clean
.NOTPARALLEL:

figures: .venv/reproduce
	$(BIN)/python -m reproduce all $(if $(DATA),--data "$(DATA)")

explore: .venv/explorer
	$(BIN)/zfnet explore $(if $(IMAGE),"$(IMAGE)")

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: test
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

docs: .venv/docs
	$(BIN)/mkdocs build --strict

site: .venv/docs .venv/reproduce
	$(BIN)/python -m reproduce site

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv || (echo "On Debian: apt install python3-venv" && exit 1)
	touch $@

.venv/reproduce: pyproject.toml | .venv/created
	@echo "Installing PyTorch and the rest into .venv: $(SIZE), some minutes."
	$(INSTALL_TORCH)
	$(PIP) --quiet -e ".[reproduce]"
	touch $@

.venv/explorer: pyproject.toml | .venv/created
	@echo "Installing PyTorch and the rest into .venv: $(SIZE), some minutes."
	$(INSTALL_TORCH)
	$(PIP) --quiet -e ".[explorer]"
	touch $@

.venv/dev: pyproject.toml | .venv/created
	@echo "Installing PyTorch, the tests' oracles and the rest into .venv: $(SIZE), some minutes."
	$(INSTALL_TORCH)
	$(PIP) --quiet -e ".[reproduce,explorer,dev]"
	touch $@ .venv/reproduce

.venv/docs: pyproject.toml | .venv/created
	$(INSTALL_TORCH)
	$(PIP) --quiet -e ".[docs]"
	touch $@

clean:
	rm -rf .venv figures/samples build dist site *.egg-info
