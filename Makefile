# `make help` lists the targets. PYTHON=python3.13 VENV=.venv-3.13 tries another Python.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint bench soak mutate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## serve the example application with 4 workers on 127.0.0.1:8000
	@printf '%s\n' 'Try in another terminal:' '' \
	  '  curl -i http://$(ADDRESS)/api/data' \
	  '  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w "%{http_code} " -d user_id=42 http://$(ADDRESS)/login; done' \
	  '  curl -i -H "Accept: text/html" -d user_id=42 http://$(ADDRESS)/login' \
	  '  curl -i http://$(ADDRESS)/health' ''
	@$(BIN)/gunicorn --workers 4 --bind $(ADDRESS) examples.wsgi:application

test: $(VENV)/.test ## run the whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/.lint $(VENV)/.test ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.bench ## measure, beside Flask-Limiter
	$(BIN)/python -m benchmarks

soak: $(VENV)/.test ## long loads and fuzzing
	$(BIN)/python -m pytest -m soak -v -s

mutate: $(VENV)/.test ## change the arithmetic piece by piece, and list what no test notices
	$(BIN)/python -m tests.mutate

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp for each set of extras: installed again when setup.cfg has changed, and only then.
$(VENV)/.%: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
