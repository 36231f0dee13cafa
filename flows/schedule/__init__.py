"""Scheduled retraining: change checks, deployments and notifications."""
