"""The command that shows the candidates of an automatic search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from components.core.errors import NotFound
from flows.cli.inspect import show_table
from flows.cli.options import INSPECT, AsJson, ModelName, ParamsFile, app, out, print_json, print_table
from flows.cli.promotion import EnvironmentName
from flows.project.models import open_model

if TYPE_CHECKING:
    from components.artifacts.tuning_result import Candidate, Leaderboard


@app.command(rich_help_panel=INSPECT)
def leaderboard(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A registered model. Default: the workspace's last search.")] = None,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="A version number, with or without NAME before it. Default: the newest.")
    ] = None,
    params: ParamsFile = None,
    model: ModelName = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Show the candidates of an automatic search.

    Shows validation score with interval, method, base model, cost and share of the budget, then why each candidate won or was stopped.

    Example: `retune leaderboard`, `retune leaderboard 3` and `retune leaderboard tickets 3`
    """
    if version is None and name is not None and name.isdecimal():  # the only argument is the version
        version, name = int(name), None
    board = read_leaderboard(name, version, params, model, environment)
    print_json(board) if as_json else show_leaderboard(board)


def read_leaderboard(
    name: str | None, version: int | None, params: Path | None, model: str | None, environment: str = "local"
) -> "Leaderboard":
    """Return the leaderboard of a registered version, else that of the workspace of `params` or `model`.

    The version is one of the registered model `name`, or of that of params.yaml; the newest if only `name` is given.

    Raises:
        BadParams: the model does not exist.
        NotFound: the version or its leaderboard does not exist.
    """
    from components.artifacts.tuning_result import Leaderboard

    if name is None and version is None:
        if environment != "local":
            raise typer.BadParameter("--environment needs NAME or VERSION: a workspace has no environment")
        return Leaderboard.read(open_model(model, params).root / "models/tuned")
    if params is not None or model is not None:
        raise typer.BadParameter("NAME and VERSION select a registered version, --params and --model a workspace: give one of them")
    from components.mlflow_store.registry import artifact_access
    from flows.audit.registered_model import open_model as open_registered

    registered = open_registered(name, environment)
    chosen = registered.version(version) if version is not None else registered.versions[-1]
    try:
        return Leaderboard.read(artifact_access.artifact(registered.uri, chosen, f"search/{Leaderboard.FILE}").parent)
    except NotFound as error:
        raise NotFound(f"{registered.name} version {chosen.number} has no leaderboard; tune.strategy auto writes one ({error})") from None


def show_leaderboard(board: "Leaderboard") -> None:
    """Print the candidates, best first, their reasons, then the plan and the candidates that did not fit into the budget."""
    from components.report.leaderboard import counts, optimism
    from components.report.wording import duration

    if not board.candidates:
        out.print("no candidates were compared: tune.strategy is not auto; `retune init DATA --strategy auto` writes settings for it")
        return
    several = len({entry.base for entry in board.candidates}) > 1
    columns = ("#", "candidate", "score (95 % interval)", "method", *(("base",) if several else ()), "time", "share")
    rows = [_row(entry, several) for entry in board.candidates]
    if out.is_terminal:
        print_table(columns, [_styled(entry, row) for entry, row in zip(board.candidates, rows, strict=True)])
    else:
        show_table(columns, rows)
    out.print()
    for line in filter(None, map(_why, board.candidates)):
        out.print(line, markup=False)
    cost = f"{_plain(duration(board.seconds))} of {_plain(duration(board.minutes * 60))}"
    out.print(f"\n{counts(board)}; {board.metric} on {board.validation_rows:,} validation rows; {cost}", markup=False)
    for line in filter(None, (board.plan, optimism(board), *board.notes)):
        out.print(line, markup=False)


def _row(entry: "Candidate", several: bool) -> tuple[str, ...]:
    """Return the cells of a candidate; `several` adds its base model."""
    from components.report.wording import NOTHING, duration, percent

    interval = f" ({entry.low:.3f}–{entry.high:.3f})" if entry.low is not None and entry.high is not None else ""
    score = NOTHING if entry.score is None else f"{entry.score:.3f}{interval}"
    share = NOTHING if entry.carried else _plain(percent(entry.share))
    base = (entry.base,) if several else ()
    return str(entry.number), entry.name, score, entry.method, *base, _plain(duration(entry.seconds)), share


def _why(entry: "Candidate") -> str:
    """Return the sentence on a candidate below the table; empty if there is nothing to say."""
    from components.report.leaderboard import CARRIED

    state = "winner" if entry.winner else "" if entry.state == "complete" else entry.state
    words = ": ".join(filter(None, (state, entry.reason or (CARRIED if entry.carried else ""))))
    return f"{entry.number} {words}" if words else ""


def _plain(words: str) -> str:
    """Return a number for the page with usual spaces, so that a line can be searched."""
    from components.report.wording import THIN

    return words.replace(THIN, " ")


def _styled(entry: "Candidate", row: tuple[str, ...]) -> tuple[str, ...]:
    style = "bold green" if entry.winner else "dim" if entry.score is None else ""
    return tuple(f"[{style}]{escape(cell)}[/{style}]" if style else escape(cell) for cell in row)
