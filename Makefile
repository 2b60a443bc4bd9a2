# `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ADDRESS ?= 127.0.0.1:8000

# "yes" if PYTHON was given: an environment made with another Python is then made anew.
CHOSEN := $(if $(filter-out file default undefined,$(origin PYTHON)),yes)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs bench soak mutate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '%s\n' '' 'Settings, with their defaults:' \
	  '  PYTHON=python3           the Python to use, 3.10 or later' \
	  '  VENV=.venv               the virtual environment, made if it is missing' \
	  '  ADDRESS=127.0.0.1:8000   where make demo listens'

demo: ## serve the example application with 4 workers on ADDRESS
	$(call environment,demo)
	@$(BIN)/python -c 'import socket, sys; host, _, port = sys.argv[1].rpartition(":"); \
	  socket.create_server((host, int(port))).close()' $(ADDRESS) 2>/dev/null \
	  || { echo 'Cannot listen on $(ADDRESS): it is in use, or not an address of this machine.' \
	       'Choose another: make demo ADDRESS=127.0.0.1:8001' >&2; exit 1; }
	@printf '%s\n' 'Try in another terminal:' '' \
	  '  curl -i http://$(ADDRESS)/api/data' \
	  '  curl -i http://$(ADDRESS)/health' '' \
	  'Log in six times; the first five succeed (302), and the sixth is one too many (429):' '' \
	  '  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w "%{http_code} " -d user_id=42 -d password=demo http://$(ADDRESS)/login; done' \
	  '  curl -i -H "Accept: text/html" -d user_id=42 http://$(ADDRESS)/login' ''
	@$(BIN)/gunicorn --workers 4 --bind $(ADDRESS) examples.wsgi:application

test: ## run the whole suite, and print which branches of the code it has not run
	$(call environment,test)
	$(BIN)/python -m coverage run -m pytest
	@$(BIN)/python -m coverage report

lint: ## check style and types
	$(call environment,lint)
	$(call environment,test)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: ## build README, docs/ and the reference into build/docs
	$(call environment,docs)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees -c docs . build/docs
	@echo 'Begin at build/docs/README.html'

bench: ## measure what a request costs, beside Flask-Limiter
	$(call environment,bench)
	$(BIN)/python -m benchmarks

soak: ## run the tests that take long: loads and fuzzing
	$(call environment,test)
	$(BIN)/python -m pytest -m soak -v -s

mutate: ## change the arithmetic token by token, and list the changes that no test notices
	$(call environment,test)
	$(BIN)/python -m tests.mutate

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# $(call environment,EXTRA): make the virtual environment if there is none that works, or if it is of
# another Python than the one that was chosen. Then install EXTRA of setup.cfg, unless that was done
# after setup.cfg and pyproject.toml were last changed.
define environment
@if [ -e $(VENV) ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ -n "$$(ls -A $(VENV))" ]; then \
  echo '$(VENV) is not a virtual environment: remove it, or choose another folder with VENV=' >&2; \
  exit 1; \
fi
@print='import sys; print(sys.version, sys.base_prefix)'; \
if ! $(BIN)/python -m pip --version >/dev/null 2>&1 || { [ '$(CHOSEN)' = yes ] && \
    [ "$$($(BIN)/python -c "$$print")" != "$$($(PYTHON) -c "$$print")" ]; }; then \
  if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
    found=$$($(PYTHON) -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null); \
    echo "Python 3.10 or later is needed, and $(PYTHON) is $${found:-no Python that starts}." \
      'Name another: make $@ PYTHON=python3.12' >&2; \
    exit 1; \
  fi; \
  echo 'making $(VENV) with $(PYTHON)'; \
  $(PYTHON) -m venv --clear $(VENV); \
fi
@if ! [ $(VENV)/.$(1) -nt setup.cfg ] || ! [ $(VENV)/.$(1) -nt pyproject.toml ]; then \
  echo 'installing what "make $@" needs into $(VENV)'; \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' \
    && touch $(VENV)/.$(1); \
fi
endef
