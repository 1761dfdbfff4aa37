PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# `make demo DEMO="--run runs/other"` hands options on.
DEMO ?=

.PHONY: demo test check docs clean

demo: $(VENV)/.installed
	$(BIN)/python cli.py demo $(DEMO)

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/generate_cli.py

# The stamp is younger than pyproject.toml for as long as the environment is up to date.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Removes what can be made again; `runs/` holds results, so it stays.
clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
