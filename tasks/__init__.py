"""The stages of the flows, a file each: a stage resolves its inputs, calls lvm, logs to MLflow, and returns paths and ids."""
