# make train   set up and train a network      make test    set up and run every check and test
# make check   lint and types                  make mutants break the rules on purpose: do the tests notice?

PYTHON ?= python3
BIN := .venv/bin
# TensorFlow reports its own internals, some of them as errors that are none.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: train test check mutants clean

train: .venv/train.done
	$(BIN)/polyak train $(ARGS)

# Keras takes its backend from the environment, once a process. The command's own tests start processes, and go first.
test: check
	$(BIN)/pytest tests/test_cli.py tests/test_train.py
	$(BIN)/pytest --ignore tests/keras_frontend --ignore tests/test_cli.py --ignore tests/test_train.py
	KERAS_BACKEND=tensorflow $(BIN)/pytest tests/keras_frontend
	KERAS_BACKEND=jax $(BIN)/pytest tests/keras_frontend
	KERAS_BACKEND=torch $(BIN)/pytest tests/keras_frontend

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
