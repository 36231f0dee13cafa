"""`python -m infra.buckets NAME…`: create missing buckets in the configured S3 store (RETUNE_S3_…); idempotent."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.errors import BadParams, Unavailable
from components.core.exits import run_command
from flows.settings import load_into_environment


def create_missing(names: Sequence[str], project: Path) -> list[str]:
    """Create the missing buckets and return their names; raise BadParams for rejected keys or names, or Unavailable."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    settings = load_into_environment(project)
    store = settings.s3_endpoint or "Amazon S3"
    client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 3}))
    try:
        return [name for name in names if create_if_missing(client, name)]
    except ClientError as error:
        raise BadParams(f"{store} rejects {', '.join(names)}: {error}; check RETUNE_S3_ACCESS_KEY and RETUNE_S3_SECRET_KEY") from None
    except BotoCoreError as error:
        raise Unavailable(f"{store} does not answer: {error}; check RETUNE_S3_ENDPOINT") from None


def create_if_missing(client: Any, name: str) -> bool:
    """Create a bucket if it is missing; return whether it was created."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=name)
        return False
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    client.create_bucket(Bucket=name)
    return True


def main() -> int:
    """Create the missing buckets."""
    names = sys.argv[1:]
    if not names:
        print("usage: python -m infra.buckets NAME…", file=sys.stderr)
        return 2
    created = create_missing(names, Path.cwd())
    print("\n".join(f"bucket {name}: {'created' if name in created else 'exists'}" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
