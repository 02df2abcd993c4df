"""All that the stages log to MLflow."""
