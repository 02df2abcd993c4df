"""Stages of the flows: each resolves its inputs, calls lvm, logs to MLflow, returns paths and ids."""
