.PHONY: help setup quickstart test engine unit lint bench bench-etl docs clean
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))  # many tests wait for containers and servers

help:  ## Say what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup:  ## Make .venv with all that is needed.
	@scripts/setup.sh

quickstart: setup  ## Run the README example as a real Prefect run.
	@scripts/quickstart.sh

test: setup lint engine unit  ## Everything CI runs: lint, types, layers, the suite.

engine:  ## A Docker engine and a base image for the tests; without them their tests are skipped, in CI they fail.
	@scripts/docker.sh && scripts/base_image.sh 3.11 || echo "engine: without it the docker tests cannot run" >&2

lint: setup  ## Style, types, layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup  ## The suite; a test that failed beside others is run once more alone, and must pass then.
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST) || { [ $$? -eq 1 ] && $(BIN)/pytest -n0 --last-failed; }

bench: setup  ## Measure every bar against peers, side by side in one run.
	$(BIN)/python -m benchmarks.run $(BENCH)

bench-etl: setup  ## Measure SQL ETL against psql and other tools.
	$(BIN)/python -m benchmarks.etl $(BENCH)

docs: setup  ## Write docs/reference.md from the models again.
	$(BIN)/python -m rainbow_prefect.reference docs/reference.md

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
