"""Serve a registered version over HTTP: MLflow's own scoring server behind middleware that enforces limits.

The server runs in its own process, started as the file `__main__.py` from a folder outside the repository, and imports nothing else
of Retune, because `components` must come from the version's own package. It therefore uses relative imports, and this folder is
imported as the package `scoring_server`. Rejected requests never reach MLflow or the version, accepted ones have one format, and
every error is `{"error_code": …, "message": …}`.
"""
