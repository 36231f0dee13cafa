"""MLflow: the connection, the tracking runs and the model registry."""
