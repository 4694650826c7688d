# make demo: everything from nothing, in demo/.  make test: the whole suite.  Both make the environment first.

PYTHON ?= python3
BIN := .venv/bin
# More options for pytest: make test PYTEST="-k shard"
PYTEST ?=
UV := $(BIN)/python -m uv pip

# Most tests and benchmarks start processes: let Python keep what it has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow lint schemas docs bench install constraints clean

demo: .venv/demo.installed
	$(BIN)/batchland demo demo

test: .venv/dev.installed
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST)

test-slow: .venv/dev.installed
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: .venv/dev.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/bench.installed
	$(BIN)/python -m benchmarks.score --model scratch --size small
	$(BIN)/python -m benchmarks.score --model scratch --size 2mp --count 300
	$(BIN)/python -m benchmarks.score --model scratch --size 12mp --count 100
	$(BIN)/python -m benchmarks.score --model transfer --size small --count 200
	$(BIN)/python -m benchmarks.alternatives

schemas: .venv/train.installed
	$(BIN)/python schemas/generate.py schemas

docs: .venv/dev.installed
	$(BIN)/python tools/site.py site

install: .venv/train.installed

constraints: .venv/dev.installed
	(sed -n '/^#/p' constraints.txt; $(UV) freeze --exclude-editable | grep -vE '^(nvidia-(cu|nccl|nvj|nvs|nvt)|cuda-|triton|uv=|pip=|setuptools=)') > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "batchland needs Python 3.11 or later, $(PYTHON) is older; say which: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv

.venv/train.installed: EXTRAS := train
.venv/demo.installed: EXTRAS := train,demo
.venv/bench.installed: EXTRAS := train,bench
.venv/dev.installed: EXTRAS := train,dev
.venv/%.installed: .venv/bin/python pyproject.toml constraints.txt
	$(UV) install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@ .venv/train.installed
