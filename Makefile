# Two commands: `make discover` and `make test`. Each starts from a bare clone and makes its own environment.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: test quick discover lint bench clean

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

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check src tests training benchmarks
	$(BIN)/ruff format --check src tests training benchmarks
	$(BIN)/mypy

# Files are shared out over two processes: each takes a gigabyte and one thread.
TEST_WORKERS ?= 2
test: lint
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile

# Between two edits: without what takes over 20 seconds a test, and without Quantum ESPRESSO.
quick: lint
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile -m "not slow and not qe"

bench: $(VENV)/.stamp-test
	$(BIN)/pytest benchmarks -o addopts=-q --benchmark-only

clean:
	rm -rf $(VENV) run
