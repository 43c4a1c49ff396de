# `make demo` and `make test` do all set-up themselves; they need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests of one file stay together; those of tests/flows, which take longest, start early.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# make test SEED=1: in a random order that the number decides, files and the tests within them.
ORDER  := $(if $(SEED),--random-order-bucket=module --random-order-seed=$(SEED))
# The package as it is installed, made of links: for types, borders and editors, which read files.
TREE   := build/tree
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo demo-translation demo-generation test test-slow test-gpu lint types types-elsewhere borders bench schema pictures clean

demo: $(VENV)/.demo        ## train, register and score with what the machine has
	@$(BIN)/python -m headrace.flows.demo

demo-translation: $(VENV)/.demo  ## dates in many languages to ISO 8601, by a Transformer from scratch
	@$(BIN)/python -m headrace.flows.demo translate

demo-generation: $(VENV)/.demo   ## docstrings that go on, by a Transformer from scratch
	@$(BIN)/python -m headrace.flows.demo generate

test: $(VENV)/.dev         ## the test suite, no network, no GPU; SEED=1: in a random order
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ORDER)

test-slow: $(VENV)/.slow   ## the checks that take minutes; need Java (Spark) and qemu-user (int8)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ORDER) -m "slow and not gpu and not network"

test-gpu: $(VENV)/.dev     ## needs a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev types borders  ## format, lint, types, import borders, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/python .ci/audit.py

types: $(VENV)/.dev $(TREE)
	$(BIN)/mypy

types-elsewhere: $(VENV)/.dev $(TREE)  ## as on Windows and macOS, whose standard libraries lack some calls
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

borders: $(VENV)/.dev $(TREE)
	cd $(TREE) && $(abspath $(BIN))/lint-imports --config $(CURDIR)/pyproject.toml

bench: $(VENV)/.bench $(VENV)-optimum/.done  ## measured comparisons, written to docs/benchmarks
	$(BIN)/python -m pytest tests/benchmarks -m bench -s

schema: $(VENV)/.dev       ## configs/recipe.schema.json, for editors
	$(BIN)/python -m headrace.configs.load > configs/.recipe.schema.json.tmp
	mv configs/.recipe.schema.json.tmp configs/recipe.schema.json

pictures: $(VENV)/.dev     ## the guide's pictures, by the guide's code
	$(BIN)/python -m docs.pictures

clean:                     ## removes the environment and all artifacts, the registry among them
	rm -rf $(VENV) $(VENV)-optimum .headrace build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(TREE):
	mkdir -p $@/headrace
	cd $@/headrace && ln -s $(addprefix ../../../,headrace/__init__.py headrace/py.typed configs flows modeling serving tasks) .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Headrace needs Python 3.11 or later; {sys.executable} is {v[0]}.{v[1]}. Name another: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.slow $(VENV)/.bench: $(VENV)/.dev
	$(PIP) -e '.[$(patsubst $(VENV)/.%,%,$@)]'
	@touch $@

$(VENV)-optimum/.done:     # a peer that needs an older transformers
	$(PYTHON) -m venv $(VENV)-optimum
	$(VENV)-optimum/bin/python -m pip install --quiet optimum-onnx==0.1.0 onnxruntime==1.31.1 torch==2.13.0
	@touch $@
