"""Training: the hyperparameter search and the final training."""
