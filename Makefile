# Everything here sets itself up: a fresh clone needs Python 3.10 or newer, make and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo lint test loss tables evidence docs long compat environments clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s%s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## set up .venv with the plugin (editable) and the tools

# An editable install holds copies of the start-up files, so a change in one of them installs anew.
$(INSTALLED): pyproject.toml $(wildcard yolo_losses/integration/autoload/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## make a small data set and train on it with cls_loss=slide, about three minutes
	$(BIN)/python examples/demo.py

lint: $(INSTALLED) ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint and all tests but the long ones, two files at a time
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile

loss: $(INSTALLED) ## after a loss was added or changed: its pictures, operations, tables and pages; lists what is left
	$(BIN)/yolo-losses show --all docs/losses
	$(BIN)/python tests/integration/criteria/test_cost.py --write
	$(BIN)/python docs/tables.py

tables: $(INSTALLED) ## write what follows from the declarations of the losses: tables, configs, pages
	$(BIN)/python docs/tables.py

evidence: $(INSTALLED) ## write what is said of the committed comparisons: reports, verdicts, README figure and caption
	$(BIN)/python examples/evidence/make.py

docs: $(INSTALLED) ## build the site of docs/ into build/site, with no missing link
	$(BIN)/python docs/site_builder.py
	@echo "open build/site/index.html, or $(BIN)/python -m http.server -d build/site"

long: $(INSTALLED) ## the tests that take long, about an hour, and `compat` and `environments`
	$(BIN)/python -m pytest -m long
	$(BIN)/python tests/compat.py
	$(BIN)/python tests/environments.py

compat: $(INSTALLED) ## one battery on nine Ultralytics versions, and a table, some minutes
	$(BIN)/python tests/compat.py

environments: $(INSTALLED) ## the wheel with the oldest torch, and with Python 3.10, 3.12 and 3.13, about 10 minutes
	$(BIN)/python tests/environments.py

clean: ## remove what these commands made, .venv too
	rm -rf $(VENV) runs/demo runs/examples build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
