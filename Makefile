# Two commands: `make book` builds the book, `make test` proves it. `make help` lists the rest.
# Every target sets up .venv by itself and is safe to run again, also after an interruption.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HTML := _build/html
CH ?=
export NLTK_DATA ?= $(CURDIR)/data/nltk

# Tests never look for a model hub; in JupyterLab a chapter's parameters may.
unit chapters: export HF_HUB_OFFLINE := 1

# The first Python that is new enough, unless PYTHON names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup book test unit chapters lab notebooks sweep ledger bench lint data screenshots clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with every pinned dependency

$(READY): requirements.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: this book needs Python 3.11 or newer; none was found on the PATH (name one: make PYTHON=/path/to/python3.12 …)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: this book needs Python 3.11 or newer, but $(PYTHON) is $$("$(PYTHON)" -V 2>&1)" >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv --clear $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned requirements in $(VENV) (a few minutes the first time) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt \
		|| { echo "error: pip could not install the requirements; is the package index reachable? Run the same command again to resume." >&2; exit 1; }
	@touch $@

book: $(READY) ## build the HTML from the committed outputs (a warning is an error)
	$(BIN)/jupyter-book build . -W --keep-going -n --quiet
	@test -f $(HTML)/index.html || { echo "error: the build left no $(HTML)/index.html" >&2; exit 1; }
	@echo "The book is at $(HTML)/index.html"

lab: $(READY) ## open the chapters in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

lint: $(READY) ## ruff over the code and the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(READY) ## the unit tests of the library
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile

chapters: $(READY) ## every chapter twice: papermill with another seed, then nbval
	$(BIN)/python -m pytest tests/notebooks -n 2 --dist loadfile
	$(BIN)/python tools/chapters.py papermill --seed 1
	$(BIN)/python tools/chapters.py nbval

test: lint unit chapters book ## all that CI runs
	$(BIN)/python -m pytest tests/book -n 2

notebooks: $(READY) ## re-execute and store the chapters (CH=03 for one)
	$(BIN)/python tools/chapters.py run $(CH)

sweep: $(READY) ## chapter 08's grid: compute what is missing (Ctrl-C stops, the same command resumes)
	OMP_NUM_THREADS=1 $(BIN)/python -m llmbook.experiments.sweep

ledger: $(READY) ## run the chapters at three seeds and write the claims ledger
	$(BIN)/python tools/ledger.py

bench: $(READY) ## ratios against the peers, measured in one run
	@for b in tests/benchmarks/bench_*.py; do echo "== $$b"; OMP_NUM_THREADS=1 $(BIN)/python $$b; done

data: $(READY) ## fetch the NLTK corpora of the reality checks (needs a network)
	$(BIN)/python -m llmbook.corpora download

screenshots: book ## pages as pictures: light, dark, phone (needs chromium)
	$(BIN)/python tools/screenshots.py $(HTML)

clean: ## remove what was built (not .venv, not data)
	rm -rf _build .cache .pytest_cache .ruff_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
