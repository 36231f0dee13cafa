"""`python -m infra.passwords FOLDER`: generate every secret of infra/compose.yaml, one file each; print only the names.

Only the owner can enter the folder. All can read the files in it, since a container sees a single file with the
owner and mode that it has here, and each service runs as a different user.
"""

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import BadParams
from components.core.exits import run_command

BYTES = 24  # random bytes per secret
ACTIONS = ("Read", "Write", "List", "Tagging")
IDENTITIES = ("admin", "mlflow", "retune")  # of the S3 store


def generate_secrets() -> dict[str, str]:
    """Return the content of each file, by name; a password in two files is the same."""
    databases = {f"{name}_password": secrets.token_hex(BYTES) for name in ("postgres", "mlflow", "prefect", "retune")}
    keys = {name: secrets.token_hex(BYTES) for name in IDENTITIES}
    return {
        **databases,
        **{f"s3_{name}_key": key for name, key in keys.items()},
        "retune_database": f"postgresql+psycopg://retune:{databases['retune_password']}@postgres:5432/retune",
        "s3.json": json.dumps({"identities": identities(keys)}, indent=2),
        "mlflow_admin_password": secrets.token_hex(BYTES),
        "mlflow_flask_key": secrets.token_hex(BYTES),
        "prefect_auth": f"retune:{secrets.token_hex(BYTES)}",
    }


def identities(keys: Mapping[str, str]) -> list[dict[str, object]]:
    """Return the S3 permissions for `keys` by identity: its own bucket, of the same name, and every bucket for the administrator."""
    return [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": key}],
            "actions": ["Admin"] if name == "admin" else [f"{action}:{name}" for action in ACTIONS],
        }
        for name, key in keys.items()
    ]


def write(folder: Path) -> list[str]:
    """Write the secrets into a new folder, atomically, and return their names; raise BadParams if the folder exists."""
    if folder.exists():
        raise BadParams(f"{folder} exists, and databases use its secrets; to change one, see docs/containers.md")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # mode 0700
    texts = generate_secrets()
    for name, text in texts.items():
        (partial / name).write_text(text, encoding="utf-8")
        (partial / name).chmod(0o444)
    os.rename(partial, folder)
    return sorted(texts)


def main() -> int:
    """Write the secrets."""
    if len(sys.argv) != 2:
        print("usage: python -m infra.passwords FOLDER", file=sys.stderr)
        return 2
    print(f"{sys.argv[1]}: {', '.join(write(Path(sys.argv[1])))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
