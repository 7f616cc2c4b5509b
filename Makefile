# `make` alone lists the targets. Each makes what it needs first and prints what it runs.
# Variables: PYTHON (3.11 or newer), VENV (.venv), PARSLFL_DATA (folder with data sets).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env run hybrid test check lint format docs bench constraints clean

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input

# Data sets lie where PARSLFL_DATA says, or in ../shared/data where that folder exists.
ifneq (,$(wildcard ../shared/data))
export PARSLFL_DATA ?= $(abspath ../shared/data)
endif

# What mypy reads; scripts join when they exist.
TYPED := parslfl executors/parslfl_executors $(wildcard workflows/*.py examples/*.py benchmarks/*.py)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

env: $(VENV)/.made ## make .venv with all that running, testing and checking need

$(VENV)/.made: pyproject.toml constraints.txt
	@echo "== environment in $(VENV) from constraints.txt (one to two minutes the first time)"
	@$(call python_or_cure)
	@$(call venv,$(VENV))
	$(PIP) install --quiet -c constraints.txt hatchling editables
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# CIFAR-10 where it is found, else the digits that scikit-learn carries: no download either way.
RUN ?= --dataset auto --rounds 5

run: env ## train on this machine, on the embedded local site (within three minutes)
	$(PY) workflows/cifar_round.py --site local.yaml $(RUN)

HYBRID ?= --dataset auto --rounds 5

hybrid: env ## train on a Slurm and a Kubernetes cluster at once, both started on this machine (root on Debian)
	PYTHONPATH=tests/workers:tests/testbeds/slurm:tests/testbeds/kubernetes $(PY) tests/testbeds/hybrid_bed.py $(HYBRID)

test: lint $(VENV)/flower/.made ## the linters, then every test; `.ci/run` calls exactly this
	PARSLFL_FLOWER=$(abspath $(VENV))/flower $(PY) -m pytest

# Another implementation to hold the strategies against, out of the environment's way.
$(VENV)/flower/.made: tests/strategies/flower.txt | env
	rm -rf $(VENV)/flower
	$(PIP) install --quiet --target $(VENV)/flower --no-deps -r tests/strategies/flower.txt
	@touch $@

check: lint ## the linters, then the layer, import, pickling, shape and wheel tests
	$(PY) -m pytest tests/quality

lint: env ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(TYPED)

format: env ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: env ## the links and commands in README and docs/
	$(PY) -m pytest tests/quality/test_docs.py

bench: env ## what the README's figures come from
	$(PY) benchmarks/overhead.py

constraints: ## pin anew what a clean install takes today (torch stays as pinned)
	@$(call python_or_cure)
	@rm -rf build/constraints && mkdir -p build/constraints
	@grep '^torch==' constraints.txt > build/constraints/torch.txt
	@$(call venv,build/constraints/venv)
	build/constraints/venv/bin/python -m pip install --quiet -c build/constraints/torch.txt editables '.[dev]'
	@{ echo "# The exact set that CI passes on, made by \`make constraints\`. torch has no local version here:"; \
	   echo "# pip takes the CPU or the CUDA build of it, whichever the index offers."; \
	   build/constraints/venv/bin/python -m pip freeze --all --exclude pip --exclude parslfl \
	   | sed 's/+[a-z0-9.]*$$//'; } > build/constraints/new.txt
	@mv build/constraints/new.txt constraints.txt && rm -rf build/constraints
	@echo "== constraints.txt written; now: make test"

clean: ## remove what can be made again, but for .venv and runs/
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis runinfo
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

define python_or_cure
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "parslfl needs Python 3.11 or newer, and '$(PYTHON)' is not: name another with make PYTHON=python3.12" >&2; exit 1; }
endef

# Debian splits ensurepip off; pip itself can then fill the environment.
define venv
if $(1)/bin/python -m pip --version >/dev/null 2>&1; then :; \
elif $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv $(1); \
elif $(PYTHON) -c 'import pip, venv' 2>/dev/null; then \
	$(PYTHON) -m venv --without-pip $(1) && $(PYTHON) -m pip --quiet --python $(1)/bin/python install pip; \
else echo "$(PYTHON) cannot make an environment. On Debian and Ubuntu: apt-get install -y python3-venv" >&2; exit 1; fi
endef
