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

COLUMNS = ("candidate", "score (95 % interval)", "method", "base", "time", "share", "why")


@app.command(rich_help_panel=INSPECT)
def leaderboard(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A registered model. Default: the workspace's last search.")] = None,
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="A version number. Default: the newest.")] = None,
    params: ParamsFile = None,
    model: ModelName = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Show the candidates of an automatic search.

    Shows validation score with interval, method, base model, cost, share of the budget, and why each candidate won or was stopped.

    Example: `retune leaderboard` and `retune leaderboard tickets 3`
    """
    board = read_leaderboard(name, version, params, model, environment)
    print_json(board) if as_json else show_leaderboard(board)


def read_leaderboard(
    name: str | None, version: int | None, params: Path | None, model: str | None, environment: str = "local"
) -> "Leaderboard":
    """Return the leaderboard of a version of the registered model `name`, else that of the workspace of `params` or `model`.

    Raises:
        BadParams: the model does not exist.
        NotFound: the version or its leaderboard does not exist.
    """
    from components.artifacts.tuning_result import Leaderboard

    if name is None:
        return Leaderboard.read(open_model(model, params).root / "models/tuned")
    if params is not None or model is not None:
        raise typer.BadParameter("NAME selects a registered model, --params and --model a workspace: give one of them")
    from components.mlflow_store.registry import artifact_access
    from flows.audit.registered_model import open_model as open_registered

    registered = open_registered(name, environment)
    chosen = registered.version(version) if version is not None else registered.versions[-1]
    try:
        return Leaderboard.read(artifact_access.artifact(registered.uri, chosen, f"search/{Leaderboard.FILE}").parent)
    except NotFound as error:
        raise NotFound(f"{name} version {chosen.number} has no leaderboard; tune.strategy auto writes one ({error})") from None


def show_leaderboard(board: "Leaderboard") -> None:
    """Print the candidates, best first, then what was planned and what the minutes could not buy."""
    from components.report.leaderboard import counts, optimism
    from components.report.wording import duration

    if not board.candidates:
        out.print("no candidates were compared: tune.strategy is not auto; `retune init DATA --strategy auto` writes settings for it")
        return
    rows = [_row(entry) for entry in board.candidates]
    cost = f"{_plain(duration(board.seconds))} of {_plain(duration(board.minutes * 60))}"
    if out.is_terminal:
        print_table(COLUMNS, [_styled(entry, row) for entry, row in zip(board.candidates, rows, strict=True)])
    else:
        show_table(COLUMNS, rows)
    out.print(f"\n{counts(board)}; {board.metric} on {board.validation_rows:,} validation rows; {cost}", markup=False)
    for line in filter(None, (board.plan, optimism(board), *board.notes)):
        out.print(line, markup=False)


def _row(entry: "Candidate") -> tuple[str, ...]:
    from components.report.wording import duration, percent

    interval = f" ({entry.low:.3f}–{entry.high:.3f})" if entry.low is not None and entry.high is not None else ""
    score = "–" if entry.score is None else f"{entry.score:.3f}{interval}"
    state = "winner" if entry.winner else "" if entry.state == "complete" else entry.state
    why = ": ".join(filter(None, (state, entry.reason)))
    return entry.name, score, entry.method, entry.base, _plain(duration(entry.seconds)), _plain(percent(entry.share)), why


def _plain(words: str) -> str:
    """Return a number for the page with usual spaces, so that a line can be searched."""
    from components.report.wording import THIN

    return words.replace(THIN, " ")


def _styled(entry: "Candidate", row: tuple[str, ...]) -> tuple[str, ...]:
    style = "bold green" if entry.winner else "dim" if entry.score is None else ""
    return tuple(f"[{style}]{escape(cell)}[/{style}]" if style else escape(cell) for cell in row)
