"""The command from a data file to a judged model within a number of minutes."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.init import DataFile, Group, Label, TaskOption, Text, asks, described, wanted
from flows.cli.leaderboard import show_leaderboard
from flows.cli.live_progress import live_progress
from flows.cli.options import START, AsJson, app, out, print_json
from flows.cli.pipeline import show_result
from flows.project.workspace import find_project, open_workspace


@app.command(rich_help_panel=START)
def auto(
    data: DataFile,
    label: Label = None,
    text: Text = None,
    task: TaskOption = None,
    group: Group = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Budget of the search.", show_default="15, or that of the file")] = None,
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="FILE", help="Parameter file. Default: params.yaml, or one in models/ if that has other data."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The registered model's name. Default: the name of the data file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a parameter file with other data or edited settings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the best model for a data file within some minutes.

    Writes a params.yaml as `retune init` does unless there is one for the file, then searches, trains, evaluates, judges and promotes.
    After an interruption, the same command continues with the same budget. Exits 0 when a verdict was reached, whatever it is.

    Example: `retune auto tickets.csv --minutes 15`
    """
    from components.artifacts.tuning_result import Leaderboard
    from flows.project.auto_params import params_for
    from flows.run import run_retrain

    project, choice = find_project(Path.cwd().resolve()), wanted(label, text, task, group)
    ask = None if as_json else asks()
    file, guess = params_for(data, params, project, name=name, minutes=minutes, force=force, wanted=choice, ask=ask)
    workspace = open_workspace(file)
    if as_json:
        result = run_retrain(workspace, inline=True)
        board = Leaderboard.find(workspace.root / "models/tuned")
        print_json({"result": asdict(result), "leaderboard": board and board.model_dump(mode="json")})
        return
    out.print(f"wrote {file}: {described(guess)}" if guess else f"uses {file}", markup=False)
    with live_progress(workspace.root, out):
        result = run_retrain(workspace, inline=True)
    show_result(result)
    out.print()
    if board := Leaderboard.find(workspace.root / "models/tuned"):
        show_leaderboard(board)
    else:
        out.print("the leaderboard of the search cannot be read: `retune leaderboard` gives the reason")
