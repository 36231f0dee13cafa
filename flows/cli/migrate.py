"""The command that moves a project from its embedded services to shared ones."""

from typing import Annotated

import typer

from flows.cli.options import AsJson, app, out, print_json


@app.command()
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look, and say what would be carried.")] = False,
    as_json: AsJson = False,
) -> None:
    """Carry runs, versions, artifacts, ledger, searches and DVC's cache from var/ into the services of the settings; nothing here changes.

    The services must be empty. RETUNE_MLFLOW_DATABASE is the address of the database behind MLflow's server.

    Example: `retune migrate --dry-run`
    """
    from pathlib import Path

    from flows.migrate import migrate as carry
    from flows.project.workspace import find_project

    done = carry(find_project(Path.cwd().resolve()), dry_run)
    if as_json:
        print_json(done)
        return
    what = "carried, and read back" if done.done else "would be carried"
    out.print(
        f"{what}: {done.versions:,} versions and {done.runs:,} runs ({done.rows:,} rows), {done.artifacts:,} artifacts"
        f" ({done.bytes:,} bytes), {done.ledger:,} rows of the ledger, {done.studies:,} searches, {done.objects:,} objects of DVC's"
    )
