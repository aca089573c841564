# Two commands: `make discover` and `make test`. Each starts from a bare clone and makes its own environment.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# Containers often set it; then every process of onnes compiles its source anew, and pytest rewrites every test.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test quick discover lint style types suite bench clean

# The stamps depend on what decides the environment's content; torch goes first, pinned, so that no other
# requirement can pull another build.
$(VENV)/.stamp-base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-base
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# Everything from nothing to a finished small campaign. Interrupted, it goes on where it stopped.
RUN ?= run
discover: $(VENV)/.stamp-base
	$(BIN)/onnes discover --out $(RUN) --resume

lint: style types

style: $(VENV)/.stamp-test
	$(BIN)/ruff check src tests training benchmarks
	$(BIN)/ruff format --check src tests training benchmarks

types: $(VENV)/.stamp-test
	$(BIN)/mypy

# Files are shared out over two processes: each takes a gigabyte and one thread.
TEST_WORKERS ?= 2
suite: $(VENV)/.stamp-test
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile $(SELECT)

# Types are checked beside the tests: the first time mypy takes a minute of one core.
test: style
	$(MAKE) -j 2 types suite

# Between two edits: without what takes over four CPU seconds a test, and without Quantum ESPRESSO.
quick: style
	$(MAKE) -j 2 types suite SELECT='-m "not slow and not qe"'

bench: $(VENV)/.stamp-test
	$(BIN)/pytest benchmarks -o addopts=-q --benchmark-only

clean:
	rm -rf $(VENV) run
