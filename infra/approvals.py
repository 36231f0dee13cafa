"""Serve the approval form, Prefect's deployment `decide`, in which users answer waiting requests. Part of `make ui`."""

import logging
import sys

from components.core.exits import run_command
from components.core.process import quiet_environment


def main() -> None:
    """Serve until stopped; needs PREFECT_API_URL, and the project as the working folder."""
    quiet_environment()  # before Prefect is imported
    from prefect.types.entrypoint import EntrypointType

    from flows.production.approval_form import decide

    logging.getLogger("prefect").setLevel(logging.WARNING)
    decide.serve(
        name="decide",
        description=str(decide.description),
        limit=1,
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
