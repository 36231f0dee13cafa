"""Evaluation: metrics on the test split, and behaviour cases."""
