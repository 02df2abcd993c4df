"""MLflow, as the stages use it."""
