"""The public API for gate authors: evidence, non-inferiority, slicing, overlap and leak probe."""
