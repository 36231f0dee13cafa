"""The project on disk: parameters, workspaces, models, stores, checkouts and git."""
