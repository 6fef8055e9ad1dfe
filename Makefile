# Everything a newcomer needs: `make demo`, then `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/modelops
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
NAME ?= dev
OF_EVERY_PYTHON := core health api adapters chart cli runtime training shell faults
export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(UV):
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y python3-venv
	python3 -m venv $(CACHE)/uv-$(UV_VERSION)
	$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet uv==$(UV_VERSION)

# What most processes import is compiled here, once, instead of by each of those that start together,
# and kept for other checkouts; Python itself tells by a file's time what does not fit.
UNCOMPILED := /tests?/|/plotly/|/kubernetes/(aio/)?client/(api|models)/
.venv/.synced: $(UV) uv.lock pyproject.toml operator/pyproject.toml serving_runtime/pyproject.toml training/pyproject.toml
	$(UV) sync --frozen --quiet
	kept=$(CACHE)/compiled-$$(cat uv.lock .venv/pyvenv.cfg | sha256sum | head -c 16).tar; \
	if [ -e $$kept ]; then \
		tar -x -f $$kept -C .venv; \
	else \
		$(PYTHON) -m compileall -q -j 0 -x '$(UNCOMPILED)' .venv/lib; \
		rm -f $(CACHE)/compiled-*; \
		find .venv/lib -name '*.pyc' -printf 'lib/%P\0' | tar -c -C .venv --null -T - -f $$kept.draft; \
		mv $$kept.draft $$kept; \
	fi
	touch $@

.PHONY: setup
setup: .venv/.synced ## Install the workspace into .venv

.PHONY: check
check: setup ## Format, lint, types, layers, generated files
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --cache-dir $(CACHE)/mypy
	.venv/bin/lint-imports

.PHONY: format
format: setup ## Format and mend what can be mended
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: crds
crds: setup ## Generate crds/ and the chart's copies from the models
	$(PYTHON) -m modelops_operator.api.crd

.PHONY: images
images: setup ## Build and push the operator's and the builder's images (REGISTRY= BASE_IMAGE=)
	$(PYTHON) -m modelops_operator.builder.images --registry $(REGISTRY) --base $(BASE_IMAGE) $(IMAGES_OPTIONS)

.PHONY: test
test: setup ## All tests: static, unit, contract, and the whole line in sandboxes of their own
	scripts/test

.PHONY: fuzz
fuzz: setup ## Throw made-up wheels at the builder's reader (SECONDS=60)
	$(UV) run --quiet --no-sync --with atheris==3.0.0 python tests/fuzz/wheels.py \
		-artifact_prefix=$(CACHE)/ -len_control=0 -max_len=800 -max_total_time=$(or $(SECONDS),60)

.PHONY: test-faults
test-faults: setup ## The fault suite in full: every kill, every fault, a minute's silence, 1,000 histories
	MODELOPS_LONG_FAULTS=1 $(PYTHON) -m pytest tests/faults tests/core

.PHONY: test-spark
test-spark: setup ## The reference profile by a real Spark (needs Java, fetches 400 MB)
	java -version 2>&1 | head -1 || apt-get install -y default-jre-headless
	$(UV) run --frozen --no-sync --with 'pyspark>=4.1,<5' python -m pytest tests/spark

.PHONY: test-python
test-python: $(UV) ## What needs no sandbox, by another Python (VERSION=3.13, or the path of one)
	python=$(CACHE)/another-python; \
	UV_PROJECT_ENVIRONMENT=$$python $(UV) sync --frozen --quiet --python $(or $(VERSION),3.13); \
	$$python/bin/python -m pytest -q $(addprefix tests/,$(OF_EVERY_PYTHON))

.PHONY: sandbox-up sandbox-down sandbox-status
sandbox-up: setup ## Start a whole platform here (NAME=dev)
	$(PYTHON) -m sandbox up --name $(NAME)
sandbox-down: setup ## Remove it with all its data
	$(PYTHON) -m sandbox down --name $(NAME)
sandbox-status: setup ## Tell its addresses and health as JSON
	@$(PYTHON) -m sandbox status --name $(NAME)

.PHONY: demo demo-down bench-operator
demo: setup ## The whole story, on a sandbox or KUBECONFIG= REGISTRY= MLFLOW_TRACKING_URI=
	$(PYTHON) -m demo up
demo-down: setup ## Remove all that the demo made
	$(PYTHON) -m demo down

# Its program has another name, since Python's own module is called so.
bench-operator: setup
	$(PYTHON) benchmarks/operators.py $(BENCH_OPTIONS)

bench-%: setup ## Run a benchmark, such as bench-e2e (BENCH_OPTIONS=--quick)
	$(PYTHON) benchmarks/$(subst -,_,$*).py $(BENCH_OPTIONS)
