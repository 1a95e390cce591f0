# make demo    the main job, end to end (more: make demo ARGS='--store oci://bucket@namespace/prefix')
# make test    the whole test suite but for clusters (more: make test ARGS='-k order -x')
# make test-cluster   conversions on Ray, Dask and, where there is Java, Spark; installs 900 MB more
# make lint    formatting, lint, types, layers
# make bench-setup   the peers' environments, which benchmarks compare with; minutes, 4 GB (elsewhere: make bench-setup BENCH=folder)
# make bench   measure beside the peers and write docs/benchmarks.md; under half an hour (only the page: make bench ARGS='--results FILE')
# make clean   forget the virtual environments and everything built
#
# All need Python 3.10 or newer and the package index; `make PYTHON=/path/to/python3.12 test` picks one.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster lint bench-setup bench clean

BIN := .venv/bin
ARGS ?=
BENCH ?= .bench
PEERS := mosaicml litdata webdataset

# The suite starts hundreds of processes: what the first one compiles, the others load. To import torch takes twice as long without.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: .venv/installed-demo
	$(BIN)/python examples/demo.py $(ARGS)

# Three processes, a whole file each: the suite waits for servers and ranks as much as it computes, so that two cores are not busy.
# In the order of tests/conftest.py, long files first.
test: .venv/installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/cluster $(ARGS)

# One process: the clusters have enough of their own.
test-cluster: .venv/installed-cluster
	$(BIN)/python -m pytest tests/cluster $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright

bench-setup: $(PEERS:%=bench-setup-%)
	@echo 'made $(PEERS:%=$(BENCH)/%)'

bench: .venv/installed-dev bench-setup
	BENCH='$(BENCH)' $(BIN)/python benchmarks/run.py $(ARGS)

# Each in its own: mosaicml-streaming is called streaming too, and they want different versions of NumPy. Made again where what is
# asked for is not what was installed; not by the times of files, as these take minutes and a checkout changes them.
bench-setup-%: .venv/made
	@set -e; cmp -s benchmarks/peers/$*.txt '$(BENCH)/$*/installed' && exit 0; \
	echo "making $(BENCH)/$*"; \
	$(BIN)/python -m venv --clear '$(BENCH)/$*'; \
	'$(BENCH)/$*/bin/python' -m pip install --disable-pip-version-check --retries 5 --progress-bar off --quiet \
	    --requirement benchmarks/peers/$*.txt; \
	cp benchmarks/peers/$*.txt '$(BENCH)/$*/installed'

clean:
	rm -rf .venv .bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*

# A .venv that works stays. Else any Python that is new enough and can make environments, the plain one first.
.venv/made:
	@set -e; enough='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))'; \
	if $(BIN)/python -c "$$enough" 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1; then touch $@; exit 0; fi; \
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python); do \
	    if "$$python" -c "$$enough" 2>/dev/null; then \
	        echo "making .venv with $$("$$python" --version), $$python"; \
	        "$$python" -m venv --clear .venv; \
	        touch $@; \
	        exit 0; \
	    fi; \
	done; \
	echo 'error: no Python 3.10 or newer with venv and ensurepip among: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python)' >&2; \
	echo '       Install one (on Debian and Ubuntu: apt install python3 python3-venv), or: make PYTHON=/path/to/python3' >&2; \
	exit 1

# Nothing is compiled before it is imported: of what is installed most never is, and it takes a quarter of the time.
# The stamp is older than what it was made from -> install again, which takes seconds where nothing changed.
# compat: a plain path to this checkout, which type checkers and editors understand.
.venv/installed-%: .venv/made setup.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --retries 5 --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --disable-pip-version-check --retries 5 --progress-bar off --quiet --constraint constraints.txt \
	    --no-compile --no-build-isolation --config-settings editable_mode=compat --editable '.[$*]'
	@touch $@

.PRECIOUS: .venv/installed-% .venv/made
