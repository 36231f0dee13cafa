"""Data and base models: snapshot, validate, preprocess, and the pinned base model."""
