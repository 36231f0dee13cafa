-- The databases of the shared stack, each with an owner of the same name. Idempotent; also updates changed passwords.
-- Only the owner may use a database.
\set ON_ERROR_STOP on
\set QUIET on
\set mlflow `cat /run/secrets/mlflow_password`
\set prefect `cat /run/secrets/prefect_password`
\set retune `cat /run/secrets/retune_password`

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['mlflow', 'prefect', 'retune']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE mlflow PASSWORD :'mlflow';
ALTER ROLE prefect PASSWORD :'prefect';
ALTER ROLE retune PASSWORD :'retune';

SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM unnest(ARRAY['mlflow', 'prefect', 'retune']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

REVOKE ALL ON DATABASE mlflow, prefect, retune FROM PUBLIC;
