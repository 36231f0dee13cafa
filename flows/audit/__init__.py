"""Audit a registered model: history, evidence, lineage, verification, rebuild and pruning."""
