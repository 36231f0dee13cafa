"""The commands for scheduled retraining: the run itself, its deployment, and the local services."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.core.errors import Cancelled
from components.core.process import tied_command
from flows.cli.options import PIPELINE, SCHEDULE, AsJson, Inline, app, out, print_json, show


@app.command(rich_help_panel=SCHEDULE)
def retrain(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model of this project. Default: the model of its params.yaml.")] = "",
    inline: Inline = False,
    as_json: AsJson = False,
) -> None:
    """Run the pipeline if code, settings or data have changed.

    This is what a schedule runs, in a separate checkout of the committed code and settings. New data means at least
    `retrain.min_new_labels` new labels since the last run.

    Example: `retune retrain tickets`
    """
    from flows.project.checkout import checkout, is_checkout, project_of
    from flows.run import run_scheduled

    project = project_of()
    if not is_checkout(project):
        options = [f"--{name}" for name in ("quiet", "verbose") if context.find_root().params.get(name)]
        options += ["retrain", *(["--inline"] if inline else []), *(["--json"] if as_json else []), *([model] if model else [])]
        with checkout(project) as root:
            raise typer.Exit(run_in_checkout(root, project, options))
    retraining = run_scheduled(model, inline)
    if as_json:
        print_json(retraining)
    else:
        out.print(f"\n[bold]{retraining.outcome}[/bold]  {retraining.model}: {retraining.reason}")


def run_in_checkout(root: Path, project: Path, arguments: list[str]) -> int:
    """Run `retune` with `arguments` in the checkout `root`, where code and settings are those of the commit; return the exit code.

    The child ends before this process does, even if this one is killed: the checkout is removed afterwards.
    """
    environment = os.environ | {"RETUNE_PROJECT": str(project), "PYTHONPATH": str(root)}
    child = subprocess.Popen(tied_command([sys.executable, "-m", "flows.cli", *arguments]), cwd=root, env=environment)
    while True:
        try:
            return child.wait()
        except Cancelled:  # only this process got the signal
            child.terminate()
        except KeyboardInterrupt:  # the terminal signals the child too: it ends its stage, then itself
            continue


@app.command(rich_help_panel=PIPELINE)
def workspace(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model of this project: its registered name or its folder in models/.")],
    as_json: AsJson = False,
) -> None:
    """Prepare a model's workspace and print its folder.

    Every DVC command works there.

    Example: `cd "$(retune workspace tickets)" && dvc pull && dvc repro`
    """
    from flows.run import locked_workspace

    with locked_workspace(model, None) as opened:
        print_json({"root": str(opened.root)}) if as_json else print(opened.root)


@app.command(rich_help_panel=SCHEDULE)
def deploy(
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="An existing work pool to use instead of the one in prefect.yaml.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register the deployments of prefect.yaml with Prefect.

    `retrain` is registered once per model, on the model's own schedule.

    Example: `retune deploy`
    """
    from flows.orchestrator.server import prefect_server
    from flows.project.checkout import project_of
    from flows.schedule.deployments import deploy as register
    from flows.settings import load_into_environment

    project = project_of()
    with prefect_server(project / "var", load_into_environment(project)) as api:
        names = register(project, api, pool)
    print_json({"deployments": names}) if as_json else print("\n".join(names))


@app.command(rich_help_panel=SCHEDULE)
def up(
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="The number of concurrent runs.")] = 1, as_json: AsJson = False
) -> None:
    """Start Prefect, MLflow, the approval form and workers.

    They run in the background until `retune down`.

    Example: `retune up --workers 2`
    """
    state = json.loads(service("up", str(workers)))
    if as_json:
        print_json(state)
        return
    out.print(f"Prefect  {state['prefect'].removesuffix('/api')}\nMLflow   {state['mlflow']}\nworkers  {len(state['workers'])}")
    if len(state["workers"]) != workers:
        out.print(f"The services were already running: `retune down`, then `retune up --workers {workers}`, changes the number of workers.")
    if state["login"]:
        out.print(state["login"], markup=False)
    out.print("`retune deploy` registers the deployments, `retune status` shows the state, `retune down` stops the services.")


@app.command(rich_help_panel=SCHEDULE)
def down(as_json: AsJson = False) -> None:
    """Stop the services that `retune up` started.

    A running retraining is stopped too; the next one resumes it.

    Example: `retune down`
    """
    stopped = bool(json.loads(service("down")))
    show({"stopped": stopped}, "stopped" if stopped else "nothing was running", as_json)


def service(*arguments: str) -> str:
    """Run `infra.services`, which flows may not import, and return its output; exit if it fails, since it has printed why."""
    done = subprocess.run([sys.executable, "-m", "infra.services", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise typer.Exit(done.returncode)
    return done.stdout
