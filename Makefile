# Every target sets itself up: .venv is made from requirements.lock, and reused while it is fresh.
#   make reproduce PROFILE=paper DATA=/path/to/datasets SEED=0 RUN=results/runs/mine
PYTHON ?= python3
# Another index for torch, as for CPU-only builds: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PROFILE ?= toy
DATA ?=
SEED ?=
RUN ?=
# Processes that share the tests, each with one thread; 0 is one process with all.
JOBS ?= 2
# More options of JupyterLab, as --no-browser on a server, or --allow-root in a container.
LAB ?=

BIN := .venv/bin

.PHONY: help env reproduce test lab report docs lint

help:
	@echo "make reproduce   the five notebooks on the toy profile (PROFILE= DATA= SEED= RUN=)"
	@echo "make test        all tests (JOBS=)"
	@echo "make env         the environment only (PYTHON= TORCH_INDEX=)"
	@echo "make lab         JupyterLab on the notebooks (LAB=\"--no-browser --allow-root\")"
	@echo "make report      tables and figures from stored results, no model (RUN=)"
	@echo "make docs        the executed notebooks as pages that open offline, in docs/_build (Sphinx is installed for it)"
	@echo "make lint        formatting and lint checks"

# .venv/.ready is written last and holds what the environment was made from, so neither a half-finished
# install nor an older lock passes for fresh. The base interpreter is used, since the one on PATH may be
# .venv's own, which is about to be removed.
env:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { \
	  echo "ladlib needs Python 3.11.5 or newer, and $(PYTHON) is not. Name one: make env PYTHON=python3.12" >&2; exit 2; }
	@set -e; base="$$($(PYTHON) -c 'import sys; print(sys._base_executable)')"; \
	index="$(TORCH_INDEX)"; [ -n "$$index" ] || index="$$(cat .venv/.torch_index 2>/dev/null || true)"; \
	want="$$({ cat requirements.lock pyproject.toml; "$$base" -V; pwd; echo "$$index"; } | cksum)"; \
	if [ "$$(cat .venv/.ready 2>/dev/null || true)" = "$$want" ]; then exit 0; fi; \
	echo "Making .venv from requirements.lock (a few minutes the first time)."; \
	rm -rf .venv; "$$base" -m venv .venv; \
	if [ -n "$$index" ]; then echo "$$index" > .venv/.torch_index; set -- --extra-index-url "$$index"; else set --; fi; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$@" -r requirements.lock; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	echo "$$want" > .venv/.ready

reproduce: env
	@$(BIN)/python -m ladlib reproduce --profile "$(PROFILE)" $(if $(DATA),--data "$(DATA)") $(if $(SEED),--seed "$(SEED)") $(if $(RUN),--run "$(RUN)")

test: env
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lab: env
	@$(BIN)/python -m jupyterlab $(LAB) --LabApp.default_url=/lab/tree/notebooks

report: env
	@$(BIN)/python -m ladlib report $(if $(RUN),--run "$(RUN)")

docs: env
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r docs/requirements.txt
	@$(BIN)/python -m sphinx -q -b html docs docs/_build/html
	@echo "Pages: docs/_build/html/index.html"

# Known vulnerabilities of the lock need a network: python -m pip install pip-audit (elsewhere), pip-audit -r requirements.lock
lint: env
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m nbstripout --verify --keep-id notebooks/*.ipynb notebooks/*/*.ipynb
