# Two commands for a new user: `make demo` and `make test`. Both do all the set-up that is needed.
# Needs python3 (3.11 or newer), make and a C compiler; nothing else.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: demo test lint bench setup clean

demo: $(VENV)/.ready
	@$(BIN)/endonym run recipes/typhoon_s.toml --scale tiny

test: $(VENV)/.ready-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.ready-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt tools/setup.sh
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)" ".[th,ko]"
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)" ".[dev]"
	@touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-dev
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)" ".[dev,bench]"
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
