# Everything runs in an environment of its own, made here on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint benchmark peer clean

help:
	@echo "make demo       simulate 150 maps, find their states and blocks, write reports (demo/*/report.html)"
	@echo "make test       the tests"
	@echo "make lint       style, types, and imports between the floors"
	@echo "make benchmark  the figures of docs/performance.md (long; installs cryoDRGN for comparison)"

# The stamp is newer than pyproject.toml when the environment is up to date.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "emhet_dask needs Python 3.11 or later; name it with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/emhet demo -o demo

# Files of tests side by side; benchmarks have the machine to themselves.
test: $(VENV)/.installed
	$(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest benchmarks

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# cryoDRGN is compared with in an environment of its own; torch first, in the build that is wanted.
.venv-peer/.installed:
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet torch==2.13.0
	.venv-peer/bin/python -m pip install --quiet cryodrgn==4.3.1
	@touch $@

peer: .venv-peer/.installed

benchmark: $(VENV)/.installed .venv-peer/.installed
	$(BIN)/python -m pytest benchmarks --size full

clean:
	rm -rf $(VENV) .venv-peer build dist *.egg-info
