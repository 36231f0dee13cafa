"""Artifacts passed between steps, one file each, so that a new class does not invalidate every stage."""
