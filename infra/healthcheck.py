"""`python -m infra.healthcheck URL`: asked for a container's health: exit code 0 where URL answers 200 within five seconds, else 1."""

import sys
import urllib.request

from components.core.exits import run_command

SECONDS = 5


def fault(url: str) -> str | None:
    """Return what is wrong with the answer of `url`; None where it is 200."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return None if answer.status == 200 else f"{url} answered {answer.status}"
    except (OSError, ValueError) as error:  # an error status is an OSError too
        return f"{url}: {error}"


def main() -> int:
    """Say what is wrong, if anything is."""
    found = fault(sys.argv[1])
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
