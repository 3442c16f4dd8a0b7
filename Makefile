# Everything that README.md and CONTRIBUTING.md call. Needs Python 3.11 or newer, pip, make and gcc.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
EXTRAS ?=
ALL_EXTRAS := [onnx,heic,serve,keras,signing,remote,oci,ray]

.PHONY: demo test check dist test-newest test-lowest wheels format docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".$(EXTRAS)" --group dev
	touch $@

## demo: fit handwritten digits, predict a few, show the registry
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/python examples/digits_as_images.py $(DEMO)/digits
	TL_HOME=$(DEMO)/home $(BIN)/tl auto fit $(DEMO)/digits
	TL_HOME=$(DEMO)/home $(BIN)/tl predict digits $(DEMO)/digits/3/*1.png $(DEMO)/digits/7/*2.png
	TL_HOME=$(DEMO)/home $(BIN)/tl registry promote digits@1 production
	TL_HOME=$(DEMO)/home $(BIN)/tl registry list
	@echo
	@echo "Now your own: $(BIN)/tl auto fit FOLDER, with one folder of images per class."

## test: the whole suite: unit and integration tests
test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

## check: what must hold before anything lands: format, lint, import contracts, declared dependencies, types, tests
check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry automl_tl plugins registry
	$(BIN)/mypy automl_tl plugins registry tests benchmarks examples
	$(BIN)/hadolint Dockerfile
	$(MAKE) test

## dist: source distribution and wheel
dist: $(VENV)/.installed
	rm -rf dist
	$(BIN)/uv build --quiet

## test-newest: the wheel, export in every format and the unit suite on the newest Python found, with the pinned packages
test-newest: dist
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/installed "$$(.ci/newest-python)" "$(or $(EXTRAS),$(ALL_EXTRAS))" constraints.txt

## test-lowest: the same on this Python, with the lowest versions that pyproject.toml allows
test-lowest: dist
	$(BIN)/uv pip compile --quiet --all-extras --resolution lowest-direct --only-binary :all: pyproject.toml > dist/lowest.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/installed $(PYTHON) "$(or $(EXTRAS),$(ALL_EXTRAS))" dist/lowest.txt \
	  -W ignore::DeprecationWarning -W ignore::FutureWarning  # that old packages raise in new ones

## wheels: check that every dependency has a wheel for every supported platform and Python; downloads metadata only
wheels: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/wheels

## docs: the documentation site in docs/_build/html, its notebooks executed; a warning is an error
docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	$(BIN)/python docs/make_reference.py
	TL_HOME=$(CURDIR)/docs/_build/home $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) dist build docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
