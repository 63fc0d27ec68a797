# make train   set up and train a network      make test    set up and run every check and test
# make check   lint and types                  make mutants break the rules on purpose: do the tests notice?

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest -p no:cacheprovider
# TensorFlow reports its own internals, some of them as errors that are none.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: train test test-frameworks test-tensorflow test-jax test-torch test-command check mutants clean

train: .venv/train.done
	$(BIN)/polyak train $(ARGS)

# Keras takes its backend from the environment, once a process. Two processes at a time, the longest first: each uses one core.
test: check
	$(MAKE) --jobs=2 --output-sync=target test-frameworks test-tensorflow test-command test-jax test-torch

test-frameworks: .venv/dev.done
	$(PYTEST) --ignore tests/keras_frontend --ignore tests/test_cli.py --ignore tests/test_train.py --ignore tests/test_resume.py

test-tensorflow test-jax test-torch: test-%: .venv/dev.done
	KERAS_BACKEND=$* $(PYTEST) tests/keras_frontend

# They start processes of their own.
test-command: .venv/dev.done
	$(PYTEST) tests/test_cli.py tests/test_train.py tests/test_resume.py

check: .venv/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

mutants: .venv/dev.done
	$(BIN)/python tools/mutants.py

# What is installed is named in pyproject.toml, so a set-up is made again when that changes, and when it was not finished.
.venv/train.done: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train]'
	touch $@

.venv/dev.done: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/train.done

.venv/bin/pip:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv
