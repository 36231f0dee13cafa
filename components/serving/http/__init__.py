"""A registered version behind MLflow's own scoring server, with limits before it.

It runs in a process of its own, started as the file `__main__.py` from a folder outside the repository, and imports nothing else of
Retune: `components` must come from the version's own package. Hence the relative imports: there this folder is a package `scoring_server`.
What is refused here never reaches MLflow or the version, what reaches them has one shape, and every error is
`{"error_code": …, "message": …}`.
"""
