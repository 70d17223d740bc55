# The project's commands: `make help` lists them. Each does the set-up that it needs, from nothing.
# PYTHON makes the virtual environment, ARGS goes to the program:
#   make train ARGS="env=pendulum seed=2"      make test ARGS="tests/test_cli.py -k help"

PYTHON ?= python3
ARGS ?=
PART ?=
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# tests run in several processes, one a core
TOGETHER := -n logical --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup train sweep test coverage check format docs ui wheel bench wheels bench-gpu clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV_READY)  ## install everything into .venv

train: $(RUN_READY)  ## train a policy; CartPole, unless ARGS says otherwise
	$(BIN)/python -m rl8 $(ARGS)

sweep: $(RUN_READY)  ## train once per combination of values, e.g. ARGS="algo.gamma=0.9,0.97 seed=1,2"
	$(BIN)/python -m rl8 --multirun $(ARGS)

test: $(DEV_READY)  ## run the tests
	$(BIN)/python -m pytest $(TOGETHER) $(ARGS)

coverage: $(DEV_READY)  ## run the tests and list the lines that none of them reaches; takes half as long again
	$(BIN)/python -m pytest $(TOGETHER) --cov $(ARGS)

check: $(DEV_READY)  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_READY)  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV_READY)  ## build the documentation site in docs/_build
	$(BIN)/python -W error docs/build.py

ui: $(RUN_READY)  ## look at the recorded runs in a browser
	$(BIN)/mlflow ui

wheel: $(DEV_READY)  ## build a wheel and a source archive in dist
	$(BIN)/python -m build --outdir dist

bench: $(RUN_READY)  ## measure speed and memory beside other libraries: 35 minutes on two cores, the first time more
	$(BIN)/python -m experiments.throughput.bench $(ARGS)

wheels: $(RUN_READY)  ## gather in .wheels what bench-gpu needs on a machine that reaches no registry
	$(BIN)/python -m experiments.throughput.wheels

bench-gpu:  ## the same on a GPU, PART=a and then PART=b, five minutes each: PYTHON needs torch, no set-up is done
	$(PYTHON) -m experiments.throughput.gpu $(PART) $(ARGS)

clean:  ## remove .venv, caches and whatever was built; runs stay
	rm -rf $(VENV) build dist docs/_build htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache
	find rl8 tests -name __pycache__ -type d -prune -exec rm -rf {} +

# all that a command needs in one installation: what pip takes for its choice of versions, it takes each time
$(RUN_READY): WANTED := .
$(DEV_READY): WANTED := '.[dev,docs]'
$(RUN_READY) $(DEV_READY): pyproject.toml constraints.txt
	@echo "Installing rl8 into $(VENV); the first time takes a few minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable $(WANTED)
	@touch $(RUN_READY) $@
