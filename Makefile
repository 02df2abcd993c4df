# Every target sets itself up: the first call makes .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# Nothing is fetched from a model hub, and nothing is reported to anyone.
export HF_HUB_OFFLINE = 1
export DO_NOT_TRACK = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS = 120

# The Prefect database of this checkout, which 'make up' shows in its UI. The user's own Prefect is left alone.
PREFECT_HERE = mkdir -p .prefect/home && PREFECT_HOME="$(CURDIR)/.prefect/home"

# Two processes share two cores, so each computes on one thread.
TESTS = OMP_NUM_THREADS=1 $(BIN)/pytest

.PHONY: setup setup-test setup-docs setup-bench setup-mutants demo serve test test-all lint mutants docs bench ui up down clean

setup: .venv/ready  ## what the demo, the flows and the server need

setup-test: .venv/ready-test  ## and what tests, style and types need, vec2text included

setup-docs: .venv/ready-docs

setup-bench: .venv/ready-bench

setup-mutants: .venv/ready-mutants

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[pipeline,serve]"
	@# Prefect takes nine seconds to create its database; done here, no run has to wait for it.
	$(PREFECT_HERE) $(BIN)/prefect server database upgrade -y >/dev/null
	@touch $@

# Each of these adds to the same .venv, so that nothing is installed twice.
.venv/ready-test: .venv/ready
	$(PIP) -e ".[dev,vec2text]"
	@touch $@

.venv/ready-docs: .venv/ready
	$(PIP) -e ".[docs]"
	@touch $@

.venv/ready-bench: .venv/ready
	$(PIP) -e ".[bench]"
	@touch $@

.venv/ready-mutants: .venv/ready-test
	$(PIP) -e ".[mutants]"
	@touch $@

demo: setup  ## documents to a champion, with the built-in corpus and encoder
	$(PREFECT_HERE) $(BIN)/python -m flows.retrain_all --preset demo

serve: setup  ## the champion over HTTP at 127.0.0.1:8766, with a page to try it on
	$(BIN)/lvm serve --model models/champion --data data

test: setup-test  ## the fast tests, offline, in minutes
	$(TESTS) -n 2 --dist loadfile --disable-socket --allow-unix-socket

test-all: setup-test  ## the slow tests: they start servers and browsers and kill processes; skipped ones are listed
	$(TESTS) -m slow -rs -n 2 --dist loadfile --no-loadscope-reorder

lint: setup-test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: setup-mutants  ## 400 small mistakes, put into the code one at a time: exit code 3 when the tests notice fewer than 95 %
	$(BIN)/python -m bench.mutants.run $(MUTANTS)

docs: setup-docs  ## the documentation as a site in site/
	$(BIN)/mkdocs build --strict

bench: setup-bench  ## lists the benchmarks; each runs on its own and says what it needs
	@grep -rlE '^if __name__ == .__main__.' bench --include='*.py' | sort | sed -e 's|/|.|g' -e 's|\.py$$||' -e 's|^|$(BIN)/python -m |'

# 'ui', 'up' and 'down' keep logs in .prefect/, and the addresses of what runs as shell exports in .prefect/env.
ui: setup  ## MLflow's UI, at MLFLOW_PORT=5000 or a free port
	@$(BIN)/python -m flows.services ui

up: setup  ## Prefect server, worker and MLflow's UI, at PREFECT_PORT=4200 and MLFLOW_PORT=5000 or free ports; deploys the flows
	@$(BIN)/python -m flows.services up

down: setup  ## cancels running flows, then stops all services
	@$(BIN)/python -m flows.services down

clean:  ## removes what the pipeline made; the environment stays
	@test ! -d .prefect || $(BIN)/python -m flows.services down
	rm -rf .prefect data runs models decoders site mlruns/mlflow.db mlruns/artifacts
