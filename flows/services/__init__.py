"""What a deployment needs around it: a Prefect server, a work pool with a worker, MLflow's UI. `make up`, `make ui`, `make down`."""
