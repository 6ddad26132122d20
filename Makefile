# Every target sets up what it needs, once. `make` alone lists them.
# Written for GNU make 3.81 and newer, the one macOS carries.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
LAYER_ARGS ?=

VENV   := .venv
BIN    := $(VENV)/bin
STATIC := saliency_widgets/widgets/static
BUNDLE := $(STATIC)/views.js
ZOO    := build/zoo

# Stamps lie inside what they vouch for: whoever deletes .venv or node_modules deletes the stamp with it.
VENV_MADE   := $(VENV)/.made
PYTHON_DONE := $(VENV)/.installed
NODE_DONE   := js/node_modules/.installed

# Folders are listed too: adding or deleting a source changes its folder's time.
JS_SOURCES := $(shell find js/src) $(filter-out js/package-lock.json,$(wildcard js/*.json js/*.js js/*.mjs js/*.ts))

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
QUIET := --quiet --quiet
NPM := npm --prefix js --no-update-notifier --loglevel=error

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-fast test-device test-soak lint setup bundle browser bench soak layers screenshots clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-11s %s\n' "$$name" "$$text"; done
	@echo "PYTHON=python3.12 chooses the Python of a new environment; PYTEST_ARGS='-k cam' goes to pytest."

demo: setup ## open the demonstration notebook in JupyterLab
	@$(BIN)/python tools/demo.py

test: lint browser ## lint, then the tests: TypeScript, Python, and the widget in a real JupyterLab (12 minutes)
	@PYTHON="$(CURDIR)/$(BIN)/python" $(NPM) test --silent
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: setup ## the tests that need no browser
	@PYTHON="$(CURDIR)/$(BIN)/python" $(NPM) test --silent
	@$(BIN)/python -m pytest -m "not browser and not soak" $(PYTEST_ARGS)

test-device: setup ## the tests on a pretend accelerator, which they build; they need a C++ compiler
	@$(BIN)/python -m pytest -m device tests/device $(PYTEST_ARGS)

test-soak: browser ## the tests that take longest: the notebooks, long walks in the browser, clusters, planted faults
	@$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

lint: setup ## ruff, pyright, the import contracts, the words, and the TypeScript's own checks
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet --output-format=concise || { echo "run $(BIN)/ruff format" >&2; exit 1; }
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_words.py
	@$(NPM) run --silent lint

setup: $(PYTHON_DONE) $(BUNDLE) ## make the environment in .venv, once; the other targets do this themselves

bundle: $(BUNDLE) ## build the widget's JavaScript, if its sources changed

browser: setup ## find a browser for the tests, or install one
	@$(BIN)/python tools/ensure_browser.py

bench: browser ## print the table of speed, reuse, memory and accuracy, beside the peers (half an hour)
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

soak: browser ## attack the product at random, and print what was found (an hour)
	@PYTHONPATH=tests $(BIN)/python -m soak $(SOAK_ARGS)

layers: setup ## print which layer Grad-CAM takes in image models of timm and transformers (half an hour)
	@test -d $(ZOO) || $(PIP) install $(QUIET) --no-deps --target $(ZOO) \
		$$(sed -n 's/^zoo = \["\(timm[^"]*\)", "\(torchvision[^"]*\)"\]$$/\1 \2/p' pyproject.toml)
	@PYTHONPATH=$(ZOO) $(BIN)/python tools/layer_table.py $(LAYER_ARGS)

screenshots: browser ## take the README's images again
	@PYTHONPATH=tests/browser $(BIN)/python tools/screenshots.py

clean: ## delete everything the other targets made
	rm -rf $(VENV) js/node_modules .jupyter build dist test-results *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(STATIC) -type f ! -name .gitkeep -delete
	find $(wildcard saliency_widgets tests tools benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_MADE):
	@sh tools/preflight.sh "$(PYTHON)"
	@echo "Making the Python environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch is by far the largest: its pin is read from pyproject.toml, and it comes first so that nothing else draws in
# another one. The bundle only has to be there before the package is installed: a newer one needs no new install,
# and the build hook's own `npm install`, which may rewrite the lock, is not wanted.
$(PYTHON_DONE): pyproject.toml $(VENV_MADE) | $(BUNDLE)
	@echo "Installing the Python packages (the first time takes minutes) ..."
	@pin=$$(sed -n 's/^ *"\(torch==[^"]*\)",*$$/\1/p' pyproject.toml); \
		test -n "$$pin" || { echo "pyproject.toml pins no torch==" >&2; exit 1; }; \
		$(PIP) install $(QUIET) "$$pin"
	@HATCH_JUPYTER_BUILDER_SKIP_NPM=1 $(PIP) install $(QUIET) --editable ".[demo,dev]"
	@touch $@

$(NODE_DONE): js/package.json js/package-lock.json
	@sh tools/preflight.sh "$(PYTHON)"
	@echo "Installing the JavaScript packages ..."
	@$(NPM) ci --no-audit --no-fund --no-progress >/dev/null
	@touch $@

$(BUNDLE): $(JS_SOURCES) $(NODE_DONE)
	@echo "Building the widget's JavaScript ..."
	@$(NPM) run --silent build
	@touch $(foreach name,views.js views.css display.js page.js page.css,$(STATIC)/$(name))
