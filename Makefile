PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# `make demo DEMO="--run runs/other"` hands options on.
DEMO ?=

# Files in their own order: by number of tests, as xdist has it by default, the longest tests of all would come last, when
# nothing is left for the other processes.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

# `TORCH=installed`: the newest torch that pyproject.toml admits with the oldest of everything else, see
# requirements-oldest.txt.
TORCH ?=
OLDEST := .venv-oldest
# What touches other packages most: the command line, files, charts, archives, solvers, statistics.
OLDEST_TESTS := tests/test_imports.py tests/test_cli.py tests/test_supply.py tests/mixedprec tests/sensitivity/test_store.py \
	tests/vggtkit/scenes tests/vggtkit/model/test_loading.py tests/vggtkit/metrics tests/analysis/report \
	tests/analysis/commands/test_way_through.py

.PHONY: demo test test-slow test-oldest check docs pictures lock clean

demo: $(VENV)/.installed
	$(BIN)/python cli.py demo $(DEMO)

test: $(VENV)/.installed
	$(PYTEST) --dist loadfile -m "not slow"

# Whole commands on odd inputs, several threads and processes, a wheel in an environment of its own.
test-slow: $(VENV)/.installed
	$(PYTEST) --dist loadscope -m slow

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider --numprocesses auto --maxprocesses 4 --dist loadfile $(OLDEST_TESTS) \
		--deselect tests/test_cli.py::test_the_page_of_the_documentation_is_current # help looks a little different

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/generate_cli.py

pictures: $(VENV)/.installed
	$(BIN)/python docs/make_pictures.py

# The stamp is younger than pyproject.toml for as long as the environment is up to date.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(OLDEST)/.installed: requirements-oldest.txt pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(if $(TORCH),grep -v '^torch==',cat) requirements-oldest.txt > $(OLDEST)/wanted.txt
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/wanted.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-build-isolation --editable .
	touch $@

# Without the project itself, without what comes with every environment, and without which build of torch it is.
lock: $(VENV)/.installed
	head -n 2 requirements-dev.lock > requirements-dev.lock.new
	$(BIN)/python -m pip list --format freeze --exclude-editable --exclude pip --exclude wheel --exclude psutil \
		| sed 's/+[a-z0-9.]*$$//' | sort -f >> requirements-dev.lock.new
	mv requirements-dev.lock.new requirements-dev.lock

# Removes what can be made again; `runs/` holds results, so it stays.
clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
