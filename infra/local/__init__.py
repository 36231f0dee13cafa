"""The shared stack on one machine without containers: PostgreSQL, an S3 store, MLflow's and Prefect's servers, and workers.

Everything listens on loopback and stores its data in one folder; `python -m infra.local` starts and ends it.
"""
