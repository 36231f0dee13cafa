"""The building blocks of Retune: plain functions, paths in and one folder out; no Prefect, no DVC."""
