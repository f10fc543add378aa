# make demo: an unlearned MNIST model and its report in runs/mnist-demo/
# make celeba: a VAE of faces that forgets Male, then Eyeglasses, in runs/celeba/ (TFDS_DATA_DIR)
# make dit: a diffusion transformer of digits that forgets a label, in runs/dit-dit/
# make test: linters, import contracts, the test suite, and the wheel outside the checkout
# make wheel: builds the wheel and runs tests/wheel with it, outside the checkout
# make lock: refresh requirements.lock from the registry

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint requirements.lock --editable
# Of all that is installed Python compiles what is imported, once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo celeba dit test lint lock clean wheel

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

# requirements.lock pins every version, for each Python separately; as constraints
# it lets an extra install only what that extra needs.
$(VENV)/.experiments: requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) '.[experiments]'
	touch $@

$(VENV)/.tfds: requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) '.[experiments,tfds]'
	touch $@ $(VENV)/.experiments

$(VENV)/.test: requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) '.[test]'
	touch $@ $(VENV)/.experiments $(VENV)/.tfds

demo: $(VENV)/.experiments
	$(BIN)/python -m experiments.mnist --out runs/mnist-demo

celeba: $(VENV)/.tfds
	$(BIN)/python -m experiments.celeba --data celeb_a+celeb_a_half --seeds 1 --forget Male
	$(BIN)/python -m experiments.celeba --data celeb_a+celeb_a_half --seeds 1 --forget Eyeglasses

dit: $(VENV)/.experiments
	$(BIN)/python -m experiments.dit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 40 --ignore tests/wheel
	$(MAKE) wheel

# The wheel comes first on the path and the checkout is not on it: what a user would import.
wheel: $(VENV)/.test
	rm -rf build/wheel build/outside
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --target build/outside build/wheel/*.whl
	set -e; folder=$$(mktemp -d); cp -r tests/wheel tests/digits.py README.md $$folder; cd $$folder; \
	  PYTHONPATH=$(CURDIR)/build/outside:$$folder:$$folder/wheel \
	  $(CURDIR)/$(BIN)/python -m pytest -q -rA wheel; rm -rf $$folder

lock: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra test --no-header \
	  --no-emit-index-url --no-emit-find-links --no-annotate --upgrade \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) runs
