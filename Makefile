# make demo   install, then train and report on drawn faces: needs nothing but Python 3.11 or later
# make test   install, then the tests, but for those that train for long
# make test-slow   those; CI runs both
# make test-long   and those that take longer still: faults, kills, a Ray cluster that loses a node, long fuzzing
# make check  formatting, lint, types
# make docs   the documentation as a website in site/; fails on broken links and on pages that load from other hosts
# make reports   speed.md from the records of reports/speed, and whether adjusted-scores.md is what reports/runs has
# make audit  known vulnerabilities of what is installed; asks a public service, so it needs a network
# make fuzz   100,000 damaged and hostile files for every reader; CASES and SEED say how many and which
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin


.PHONY: demo test test-slow test-long check docs reports audit fuzz install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ferbench needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/ferbench train wslgan --dataset synth --data-home demo/data --runs demo/runs
	$(BIN)/ferbench maps $$(grep -l '"kind": "attention"' demo/runs/*/record.json | head -1 | xargs dirname | xargs basename) \
	  --dataset synth --data-home demo/data --runs demo/runs --out demo/figures
	$(BIN)/ferbench report --dataset synth --runs demo/runs
	$(BIN)/ferbench report --dataset synth --runs demo/runs --data-home demo/data --format html --errors 12 --out demo/report.html
	@echo 'the same as a page: $(CURDIR)/demo/report.html'

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow' --ignore tests/benchmarks
	$(BIN)/python -m pytest -m 'not slow' tests/benchmarks

test-slow: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'slow and not long'

test-long: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m long

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
	@echo 'open $(CURDIR)/site/index.html'

reports: install
	$(BIN)/ferbench report --bench --runs reports --format markdown --out reports/speed.md
	$(BIN)/python -m pytest -q tests/test_evidence.py

audit: install
	$(BIN)/pip install -q 'pip-audit>=2.9'
	$(BIN)/pip-audit --local --skip-editable

fuzz: install
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),100000) --seed $(or $(SEED),0) --findings fuzz-findings

clean:
	rm -rf $(VENV) demo site
