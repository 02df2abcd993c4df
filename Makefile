# Every target sets itself up: the first run makes .venv from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# Nothing is looked up on a hub, nothing is reported to anyone.
export HF_HUB_OFFLINE = 1
export DO_NOT_TRACK = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS = 120

# Prefect's database of this checkout, which 'make up' shows in its UI; the user's own is left alone.
HOME_HERE = mkdir -p .prefect/home && PREFECT_HOME="$(CURDIR)/.prefect/home"

.PHONY: setup demo serve test test-all lint ui up down clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; give PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,vec2text]"
	@# Prefect takes nine seconds to make its database; so no run waits for it.
	$(HOME_HERE) $(BIN)/prefect server database upgrade -y >/dev/null
	@touch $@

demo: setup  ## documents to a champion, on the embedded text and encoder
	$(HOME_HERE) $(BIN)/python -m flows.retrain_all --max-docs 120 --set epochs=8

serve: setup  ## the champion over HTTP, with a page to try it on, at 127.0.0.1:8766
	$(BIN)/lvm serve --model models/champion --data data

test: setup  ## the tests, offline, in minutes
	$(BIN)/pytest -n 2 --dist loadfile --disable-socket --allow-unix-socket

test-all: setup  ## those that start servers, browsers or kill processes; says what was skipped
	$(BIN)/pytest -m slow -rs -n 2 --dist loadfile

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What these three start or stop, and where it listens, is in .prefect/: logs, and the addresses as exports in .prefect/env.
ui: setup  ## MLflow's UI, at MLFLOW_PORT=5000 or a free port
	@$(BIN)/python -m flows.services ui

up: setup  ## Prefect server, worker and MLflow's UI, at PREFECT_PORT=4200 and MLFLOW_PORT=5000 or free ports; deploys the flows
	@$(BIN)/python -m flows.services up

down: setup  ## what runs is cancelled, then all of it stopped
	@$(BIN)/python -m flows.services down

clean:  ## what the pipeline made; the environment stays
	@test ! -d .prefect || $(BIN)/python -m flows.services down
	rm -rf .prefect data runs models decoders mlruns/mlflow.db mlruns/artifacts
