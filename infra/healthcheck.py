"""`python -m infra.healthcheck URL`: a container's health check; exit code 0 if URL answers with 200 within five seconds, else 1."""

import sys
import urllib.request

from components.core.exits import run_command

SECONDS = 5


def fault(url: str) -> str | None:
    """Return None if `url` answers with 200, else what is wrong. Standard library only, to start fast."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return None if answer.status == 200 else f"{url} answered {answer.status}"
    except (OSError, ValueError) as error:  # an error status is also an OSError
        return f"{url}: {error}"


def main() -> int:
    """Print the fault, if any."""
    if problem := fault(sys.argv[1]):
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
