#!/bin/sh
# Run a command with each file of /run/secrets as a variable (`pgpassword` becomes PGPASSWORD), for this process and its children
# only. Variables that are already set are kept. Files named retune_… are skipped: Retune reads them itself (flows/settings.py).
set -eu
for file in "${SECRETS:-/run/secrets}"/*; do
    name=$(basename "$file" | tr '[:lower:]' '[:upper:]')
    case "$name" in RETUNE_* | [0-9]* | *[!A-Z0-9_]*) continue ;; esac
    if [ ! -f "$file" ] || printenv "$name" >/dev/null; then continue; fi
    value=$(cat "$file") # not in `export`, which would hide a read error
    export "$name=$value"
done
# Remove the lease lock of a killed Prefect server: the next one has the same PID here, and would wait for itself.
rm -f "${PREFECT_HOME:-/tmp/prefect}/concurrency_leases/expirations.lock"
exec "$@"
