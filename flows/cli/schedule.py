"""The commands around a schedule: what it does, by hand; and who does it."""

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from components.core.errors import Cancelled
from components.core.process import tied_command
from flows.cli.options import AsJson, Inline, app, out, print_json


@app.command()
def retrain(
    model: Annotated[str, typer.Argument(metavar="[NAME]", help="A model of this project; its own when left out.")] = "",
    inline: Inline = False,
    as_json: AsJson = False,
) -> None:
    """Do what a schedule does: look for news, and only then run the whole line, on committed code and settings, in a checkout of its own.

    There is news when code, settings or base model are others than in the last run, or the data has `retrain.min_new_labels` new labels
    or more.

    Example: `retune retrain tickets`
    """
    from flows.project.checkout import checkout, is_checkout, project_of
    from flows.run import run_scheduled

    project = project_of()
    if not is_checkout(project):
        with checkout(project) as root:
            raise typer.Exit(again(root, project, model, inline, as_json))
    ended = run_scheduled(model, inline)
    if as_json:
        print_json(ended)
    else:
        out.print(f"\n[bold]{ended.outcome}[/bold]  {ended.model}: {ended.reason}")


def again(root: "os.PathLike[str]", project: "os.PathLike[str]", model: str, inline: bool, as_json: bool) -> int:
    """Call the same command in the checkout `root`, where code and settings are those of the commit; return its exit code.

    It ends before this process does, and with it where it is killed: the checkout is removed afterwards.
    """
    options = [*(["--inline"] if inline else []), *(["--json"] if as_json else []), *([model] if model else [])]
    environment = os.environ | {"RETUNE_PROJECT": str(project), "PYTHONPATH": str(root)}
    command = tied_command([sys.executable, "-m", "flows.cli", "retrain", *options])
    child = subprocess.Popen(command, cwd=root, env=environment)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the terminal has told the child too: it ends its stage, and then itself
            continue
        except Cancelled:  # only this process was told
            child.terminate()


@app.command()
def workspace(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model of this project: its name in the registry, or its folder.")],
) -> None:
    """Lay a model's files in place in its workspace and print the folder: every DVC command works there.

    Example: `cd "$(retune workspace tickets)" && dvc pull && dvc repro`
    """
    from flows.project.models import open_model
    from flows.run import single_process

    place = open_model(model, None)
    with single_process(place):
        print(place.root)


@app.command()
def deploy(
    pool: Annotated[str | None, typer.Option(metavar="NAME", help="A work pool that exists, in place of prefect.yaml's.")] = None,
) -> None:
    """Register with Prefect what its workers run: `prefect.yaml`, with one `retrain` a model, on the model's own schedule.

    Example: `retune deploy`
    """
    from flows.orchestrator.server import prefect_server
    from flows.project.checkout import project_of
    from flows.schedule.deployments import deploy as register
    from flows.settings import load_into_environment

    project = project_of()
    with prefect_server(project / "var", load_into_environment(project)) as api:
        for name in register(project, api, pool):
            out.print(name)


@app.command()
def up(workers: Annotated[int, typer.Option(min=0, metavar="N", help="How many runs may work at once.")] = 1) -> None:
    """Start Prefect's server, MLflow's server, the form for approvals and workers in the background; `retune down` ends them.

    Example: `retune up --workers 2`
    """
    state = json.loads(service("up", str(workers)))
    out.print(f"Prefect  {state['prefect'].removesuffix('/api')}\nMLflow   {state['mlflow']}\nworkers  {len(state['workers'])}")
    if len(state["workers"]) != workers:
        out.print(f"They were up already: `retune down`, then `retune up --workers {workers}`, changes how many work.")
    if state["login"]:
        out.print(state["login"], markup=False)
    out.print("`retune deploy` registers what they run, `retune status` says how things stand, `retune down` ends it.")


@app.command()
def down() -> None:
    """End what `retune up` has started; a run that is at work ends too, and the next one goes on where it stopped.

    Example: `retune down`
    """
    out.print("ended" if json.loads(service("down")) else "nothing was running")


def service(*arguments: str) -> str:
    """Call the module that runs services, which stands above this one, and return what it printed.

    Raises:
        typer.Exit: it failed, and has said why.
    """
    done = subprocess.run([sys.executable, "-m", "infra.services", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise typer.Exit(done.returncode)
    return done.stdout
