"""The shared stack on one machine without containers: PostgreSQL, an S3 store, MLflow's and Prefect's servers, and workers.

Everything listens on loopback, keeps its data in one folder, and is started and ended by one command: `python -m infra.local`.
"""
