# make demo   install, then train and report on drawn faces: needs nothing but Python 3.11 or later
# make test   install, then all tests
# make check  formatting, lint, types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin


.PHONY: demo test check install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ferbench needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/ferbench train wslgan --dataset synth --data-home demo/data --runs demo/runs
	$(BIN)/ferbench report --dataset synth --runs demo/runs

test: install
	$(BIN)/python -m pytest -n auto --ignore tests/benchmarks
	$(BIN)/python -m pytest tests/benchmarks

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo
