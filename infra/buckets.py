"""`python -m infra.buckets NAME…`: make the buckets that are missing in the S3 store of the settings (RETUNE_S3_…); repeatable."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.errors import BadParams, Unavailable
from components.core.exits import run_command
from flows.settings import load_into_environment


def make(names: Sequence[str], project: Path) -> list[str]:
    """Make the buckets that are missing and return their names.

    Raises:
        BadParams: the store refuses these keys or a name.
        Unavailable: the store does not answer.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    settings = load_into_environment(project)
    where = settings.s3_endpoint or "Amazon S3"
    client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 3}))
    try:
        return [name for name in names if made(client, name)]
    except ClientError as error:
        raise BadParams(f"{where} refuses {', '.join(names)}: {error}; see RETUNE_S3_ACCESS_KEY and RETUNE_S3_SECRET_KEY") from None
    except BotoCoreError as error:
        raise Unavailable(f"{where} does not answer: {error}; see RETUNE_S3_ENDPOINT") from None


def made(client: Any, name: str) -> bool:
    """Make a bucket, unless we have it; say whether it was made."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    else:
        return False
    client.create_bucket(Bucket=name)
    return True


def main() -> int:
    """Make the buckets that are missing."""
    names = sys.argv[1:]
    if not names:
        print("usage: python -m infra.buckets NAME…", file=sys.stderr)
        return 2
    new = make(names, Path.cwd())
    print("\n".join(f"bucket {name}: {'made' if name in new else 'was there'}" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
