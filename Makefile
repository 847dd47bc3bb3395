# Everything runs in a virtual environment of its own, .venv, with the exact versions of
# constraints.txt. The first call installs it (about 6 GB, most of it PyTorch); later calls start
# at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where two processes test at once, each computes with one thread.
WORKERS ?= 2
# What `make bench` is to reach, in per cent, and how often.
TO ?= 75 85 91 94
SEEDS ?= 5

.PHONY: help install demo course test test-long check check-types check-style check-fields check-layers \
	format bench reference docs docs-links results dist clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(INSTALLED)  ## Install tenfold and everything it needs into .venv

$(INSTALLED): pyproject.toml constraints.txt scripts/install.py
	@echo "Installing tenfold and what it needs into $(VENV); the first time takes half a minute or more."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tenfold needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install.py
	@touch $@

demo: $(INSTALLED)  ## Train a dense and a convolutional network on CIFAR-10 and compare them
	$(BIN)/tenfold demo

course: $(INSTALLED)  ## Execute the chapters of the course into build/course (TENFOLD_COURSE=reduced for a quick look)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[course]"
	rm -rf build/course
	mkdir -p build/course
	cd build/course && ../../$(BIN)/tenfold course all && ../../$(BIN)/jupyter execute --inplace [0-9]*.ipynb

test: $(INSTALLED)  ## Run the tests, one of each kind
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-long: $(INSTALLED)  ## Run what takes long: repeats, kill loops, soaks
	$(BIN)/python -m pytest -m long -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)  ## Lint, check formatting, types, layers and that no recipe field is dead
	@$(MAKE) --no-print-directory --jobs=$(WORKERS) check-types check-style check-fields check-layers

check-types: $(INSTALLED)
	$(BIN)/mypy

check-style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-fields: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/test_recipe_fields.py

check-layers: $(INSTALLED)
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## Time the loop, the fast recipes and the service (3 h; TO=75 SEEDS=3 for less), write measured.json and the tables
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/accuracy.py --to $(TO) --seeds $(SEEDS) --out runs/bench
	$(BIN)/python benchmarks/serving.py --runs runs/bench/runs --out runs/bench/serving.json
	$(BIN)/python docs/make_speed.py runs/bench

reference: $(INSTALLED)  ## Write the reference, the recipes' schema and what quotes measured.json
	$(BIN)/python docs/make_reference.py

docs: reference  ## Build the site in build/site, with a gallery of pages that tenfold makes (3 min the first time)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python docs/make_gallery.py build/gallery
	$(BIN)/python docs/make_site.py

docs-links: docs  ## Check the site's links to other sites, which takes a network
	$(BIN)/python docs/make_site.py --links

results: $(INSTALLED)  ## Write docs/results.md, measured.json and the README from the studies that were run
	$(BIN)/python docs/make_results.py $(wildcard studies/*)

dist: $(INSTALLED)  ## Build wheel and source distribution into dist/, and try both outside the clone
	$(BIN)/python scripts/dist.py

clean:  ## Remove the virtual environment and caches; runs are kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
