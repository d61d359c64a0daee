# Everything sets itself up: Python 3.11 or newer and make are enough. ARGS goes to the program: make test ARGS="-k pool -x"

VENV := .venv
LOWEST := .venv-lowest
PIP := -m pip --disable-pip-version-check --quiet
ARGS :=
PYTHON := # of test-python
# Workers of a test run. The tests wait more than they compute, hence more than cores; `ARGS=-n0` runs in one process.
WORKERS := 6
PYTEST := -m pytest --numprocesses $(WORKERS) --dist worksteal

# Every process of a test run would compile again what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check site bench compliance setup test-lowest test-python test-servers mutants simulate clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/runtime ## Run examples/quickstart
	@DBCONFIG_ECHO=false $(VENV)/bin/python examples/quickstart/main.py $(ARGS)

test: setup ## Run the tests against private PostgreSQL and MariaDB servers
	@$(VENV)/bin/python $(PYTEST) $(ARGS)

check: $(VENV)/dev ## Check style, types and layers
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy --strict dbconfig
	@$(VENV)/bin/lint-imports

site: $(VENV)/docs ## Build the documentation into build/site; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

bench: setup ## Compare with the peers
	@for file in $$(grep -l '^if __name__' benchmarks/*.py | grep -v quick); do \
		$(VENV)/bin/python -m benchmarks.$$(basename $$file .py) $(ARGS) || exit 1; \
	done

bench-quick: setup ## Print every ratio with its goal in two minutes; fail where one has become worse
	@$(VENV)/bin/python -m benchmarks.quick $(ARGS)

setup: $(VENV)/dev ## Install all that development and tests need
	@tests/support/install_servers.sh

test-lowest: $(LOWEST)/installed ## Run the tests that need no server on the lowest supported versions
	@$(LOWEST)/bin/python $(PYTEST) -m "not server and not slow" $(ARGS)

test-python: $(if $(PYTHON),.venv-$(PYTHON)/installed) ## Run the tests on another Python: make test-python PYTHON=3.13
	@[ -n "$(PYTHON)" ] || { echo "On which? make test-python PYTHON=3.13" >&2; exit 2; }
	@tests/support/install_servers.sh
	@.venv-$(PYTHON)/bin/python $(PYTEST) $(ARGS)

test-servers: setup ## Fetch the newest servers and run their tests: make test-servers ARGS="trixie postgresql -- -x"
	@WORKERS=$(WORKERS) tests/support/on_servers.sh $(ARGS)

simulate: $(VENV)/dev ## Drive the pool's waiting line through a million random schedules: make simulate ARGS="--seed 7"
	@$(VENV)/bin/python -m tests.engine.pool.simulator $(ARGS)

mutants: setup ## Change the code in 300 places and print what no test notices: make mutants ARGS="--seed 2 --sample 50"
	@$(VENV)/bin/python -m tests.mutation $(ARGS)

compliance: setup ## Run SQLAlchemy's suite for dialects on a stock engine and on ours: make compliance ARGS="sqlite"
	@$(VENV)/bin/python -m tests.compliance $(ARGS)

clean: ## Remove what was made here
	rm -rf $(VENV) $(VENV)-* build dist .hypothesis .import_linter_cache .mutants .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is the file that is written last: what fails half-way is done again, what is up to date needs no network.

$(VENV)/bin/pip $(LOWEST)/bin/pip:
	@tests/support/create_venv.sh $(@D:/bin=)

.PRECIOUS: .venv-%/bin/pip # which make would remove after use, as a mere step on the way
.venv-%/bin/pip:
	@tests/support/create_venv.sh $(@D:/bin=) $*

$(VENV)/runtime: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing dbconfig"
	@$(VENV)/bin/python $(PIP) install --upgrade "pip>=25.1"
	@$(VENV)/bin/python $(PIP) install --editable .
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	@echo "Installing the tools for development"
	@$(VENV)/bin/python $(PIP) install --group dev
	@touch $@

$(VENV)/docs: $(VENV)/runtime
	@echo "Installing what builds the site"
	@$(VENV)/bin/python $(PIP) install --group docs
	@touch $@

$(LOWEST)/installed: pyproject.toml tests/lowest.txt | $(LOWEST)/bin/pip
	@echo "Installing the lowest supported versions"
	@$(LOWEST)/bin/python $(PIP) install --upgrade "pip>=25.1"
	@$(LOWEST)/bin/python $(PIP) install --constraint tests/lowest.txt --group test --editable .
	@touch $@

.venv-%/installed: pyproject.toml | .venv-%/bin/pip
	@echo "Installing dbconfig and its tests for Python $*"
	@.venv-$*/bin/python $(PIP) install --upgrade "pip>=25.1"
	@.venv-$*/bin/python $(PIP) install --group test --editable .
	@touch $@
