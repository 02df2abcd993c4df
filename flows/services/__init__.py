"""What deployments need: a Prefect server, a work pool with a worker, and MLflow's UI. See `make up`, `make ui` and `make down`."""
