# `make lab` opens the course, `make test` proves it; everything lives in .venv, from constraints.txt.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help lab test quick lint notebooks book claims bench gpu clean

help:                              ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

lab: .venv/course.stamp            ## open JupyterLab on the student's copy of the lessons
	OMP_NUM_THREADS=2 $(BIN)/python -m sparselab start student 1.1 $(ARGS)

test: .venv/all.stamp node_modules/.package-lock.json lint  ## everything that CI runs
	$(BIN)/python -m sparselab build --check
	$(PYTEST) --dist worksteal tests
	SPARSELAB_STATIC=1 TRITON_INTERPRET=1 $(PYTEST) --dist loadscope --nbval --nbval-current-env \
	  --nbval-cell-timeout 60 --nbval-sanitize-with sparselab/course/nbval.cfg solutions
	$(MAKE) book

quick: .venv/all.stamp lint        ## the core, in under two minutes
	$(PYTEST) tests -m "not slow"

lint: .venv/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: .venv/all.stamp         ## execute every solved notebook again
	$(BIN)/python -m sparselab build

book: .venv/all.stamp              ## the website, in book/_build/html
	$(BIN)/python -m sparselab book

claims: .venv/all.stamp            ## measure every claim over three seeds
	$(BIN)/python -m sparselab claim

bench: .venv/all.stamp             ## time every fast path against its peers
	$(BIN)/python -m sparselab bench

gpu:                               ## kernels on a real GPU, from a bare checkout
	PYTHONPATH=. $(PYTHON) -m pytest -p no:cacheprovider tests/test_methods.py -k "kernel"
	PYTHONPATH=. $(PYTHON) -m sparselab bench --device cuda

clean:                             ## remove what these commands made, except the student's folder
	rm -rf .venv node_modules book/_build build dist

.venv/bin/python .venv/Scripts/python.exe:
	$(PYTHON) -m venv .venv

$(BIN)/pip: | $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python.exe,.venv/bin/python)

node_modules/.package-lock.json: package-lock.json .venv/all.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund --loglevel error
	touch $@

.venv/course.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -e ".[course]"
	touch $@

.venv/all.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -e ".[course,book,test,gpu,class]"
	touch $@ .venv/course.stamp
