"""`python -m infra.local up|down|status|backup|restore`: manage the shared stack."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from components.core.errors import Cancelled
from components.core.exits import run_command
from components.core.output_dir import make_private
from components.core.process import quiet_environment
from flows.project.workspace import find_project
from infra.local import backup, control
from infra.local.layout import make_stack, open_stack

FOLDER = "var/stack"  # below the project
VERBS = {
    "up": "start it; create it first if needed",
    "down": "end it",
    "status": "print the health of each service",
    "keep": "",  # the background process of `up`; internal
    "backup": "copy it while it runs",
    "restore": "create a new stack from a copy",
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="The shared stack on this machine, on loopback.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        command = verbs.add_parser(verb, help=text) if text else verbs.add_parser(verb)
        if verb in ("backup", "restore"):
            command.add_argument("copy", type=Path, help="the folder of the copy" + (", must not exist" if verb == "backup" else ""))
        command.add_argument("folder", nargs="?", type=Path, help=f"the folder of the stack; default: {FOLDER} in the project")
        if verb in ("up", "keep"):
            command.add_argument("--workers", type=int, default=2, choices=range(17), metavar="N", help="number of parallel runs")
    return parser.parse_args()


def dispatch(options: argparse.Namespace) -> int:
    """Run the command, and return the exit code."""
    project = find_project(Path.cwd().resolve())
    folder = (options.folder or project / FOLDER).resolve()
    if options.verb == "up":
        if options.folder is None and os.geteuid() == 0:
            make_private(folder)
            folder.parent.chmod(folder.parent.stat().st_mode | 0o011)  # PostgreSQL runs as another user and needs access
            folder.chmod(folder.stat().st_mode | 0o011)
        stack = open_stack(folder) if control.is_supervised(folder) else make_stack(folder)
        control.up(stack, project, options.workers)
        print("\n".join(control.status(stack)[0]))
        print(f"`cp {stack.folder / 'retune.env'} .env` in a project switches it to this stack.")
    elif options.verb == "down":
        print("ended" if control.down(open_stack(folder, whole=False)) else "nothing was running")
    elif options.verb == "backup":
        print(summary(backup.back_up(open_stack(folder), options.copy), options.copy))
    elif options.verb == "restore":
        print(summary(backup.restore(options.copy, folder, project), folder))
    elif options.verb == "status":
        lines, healthy = control.status(open_stack(folder, whole=False))
        print("\n".join(lines))
        return 0 if healthy else 1
    else:
        control.supervise(folder, project, options.workers)
    return 0


def summary(manifest: dict[str, Any], folder: Path) -> str:
    """Return a one-line summary of a copy."""
    rows = sum(rows for database in manifest["databases"].values() for rows, _ in database["tables"].values())
    return f"{folder}: {rows:,} rows of {len(manifest['databases'])} databases, {sum(map(len, manifest['objects'].values())):,} objects"


def main() -> int:
    """Parse the command line, run the command, and return the exit code."""
    quiet_environment()
    try:
        return dispatch(arguments())
    except KeyboardInterrupt:
        return Cancelled.exit_code


if __name__ == "__main__":
    sys.exit(run_command(main))
