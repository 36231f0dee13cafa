#!/bin/sh
# Run a command with each file of /run/secrets as a variable: `pgpassword` becomes PGPASSWORD, for this process and its children
# only. A variable that is set wins. Files that are named retune_… are left: Retune reads them itself (flows/settings.py).
set -eu
for file in "${SECRETS:-/run/secrets}"/*; do
    name=$(basename "$file" | tr '[:lower:]' '[:upper:]')
    case "$name" in RETUNE_* | [0-9]* | *[!A-Z0-9_]*) continue ;; esac
    if [ ! -f "$file" ] || printenv "$name" >/dev/null; then continue; fi
    value=$(cat "$file") # apart from export, which would hide that it cannot be read
    export "$name=$value"
done
# What a killed Prefect server left on its leases: the next one has the same number here, and would wait for itself.
rm -f "${PREFECT_HOME:-/tmp/prefect}/concurrency_leases/expirations.lock"
exec "$@"
