"""`python -m infra.local up|down|status|backup|restore`: the shared stack, each by one command."""

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


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="The shared stack on this machine, on loopback.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    known = {
        "up": verbs.add_parser("up", help="start it, or make it first"),
        "down": verbs.add_parser("down", help="end it"),
        "status": verbs.add_parser("status", help="say how each service is"),
        "keep": verbs.add_parser("keep"),  # what `up` leaves in the background; not for a person
    }
    copied = {
        "backup": verbs.add_parser("backup", help="copy it while it runs"),
        "restore": verbs.add_parser("restore", help="make a new one of a copy"),
    }
    for verb, one in copied.items():
        one.add_argument("copy", type=Path, help="the folder of the copy" + (", a new one" if verb == "backup" else ""))
    for verb, one in (known | copied).items():
        one.add_argument("folder", nargs="?", type=Path, help=f"where it keeps everything; {FOLDER} of the project when left out")
        if verb in ("up", "keep"):
            one.add_argument("--workers", type=int, default=2, choices=range(17), metavar="N", help="how many runs may work at once")
    return parser.parse_args()


def dispatch(asked: argparse.Namespace) -> int:
    """Do what was asked, and return the exit code."""
    project = find_project(Path.cwd().resolve())
    folder = (asked.folder or project / FOLDER).resolve()
    if asked.verb == "up":
        if asked.folder is None and os.geteuid() == 0:
            make_private(folder)
            folder.parent.chmod(folder.parent.stat().st_mode | 0o011)  # PostgreSQL runs as another user, and must pass through
            folder.chmod(folder.stat().st_mode | 0o011)
        stack = open_stack(folder) if control.is_kept(folder) else make_stack(folder)
        control.up(stack, project, asked.workers)
        print("\n".join(control.status(stack)[0]))
        print(f"`cp {stack.folder / 'retune.env'} .env` in a project switches it to this stack.")
    elif asked.verb == "down":
        print("ended" if control.down(open_stack(folder, whole=False)) else "nothing was running")
    elif asked.verb == "backup":
        print(described(backup.back_up(open_stack(folder), asked.copy), asked.copy))
    elif asked.verb == "restore":
        print(described(backup.restore(asked.copy, folder, project), folder))
    elif asked.verb == "status":
        lines, well = control.status(open_stack(folder, whole=False))
        print("\n".join(lines))
        return 0 if well else 1
    else:
        control.keep(folder, project, asked.workers)
    return 0


def described(manifest: dict[str, Any], where: Path) -> str:
    """Return a line on what a copy holds."""
    rows = sum(rows for found in manifest["databases"].values() for rows, _ in found["tables"].values())
    return f"{where}: {rows:,} rows of {len(manifest['databases'])} databases, {sum(map(len, manifest['objects'].values())):,} objects"


def main() -> int:
    """Do what the command line says, and return the exit code."""
    quiet_environment()
    try:
        return dispatch(arguments())
    except (Cancelled, KeyboardInterrupt):
        return Cancelled.exit_code


if __name__ == "__main__":
    sys.exit(run_command(main))
