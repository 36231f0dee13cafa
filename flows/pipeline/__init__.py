"""The retraining pipeline: the steps of a run and the evidence behind its verdict."""
