"""The commands that write the settings for a data file, and convert files of other formats."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

from components.core.errors import NotFound, RetuneError
from flows.cli.options import START, AsJson, app, out, show
from flows.project.workspace import MODELS, find_project

if TYPE_CHECKING:
    from flows.project.guessing import Guess, Wanted

Strategy = Literal["auto", "search", "none"]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The column with the answers. Default: guessed.")]
Text = Annotated[
    list[str] | None, typer.Option("--text", metavar="COLUMN", help="The column with the texts; give it twice for pairs. Default: guessed.")
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="A task of `retune tasks`, or multi_label, ordinal or regression. Default: guessed."),
]
Group = Annotated[
    str | None,
    typer.Option("--group", metavar="COLUMN", help="The column whose equal values stay in one split. Default: guessed."),
]
DataFile = Annotated[
    Path, typer.Argument(metavar="DATA", help="A CSV, TSV, JSONL, JSON or Parquet file with one labelled example per row.")
]


@app.command(rich_help_panel=START)
def init(
    data: DataFile,
    label: Label = None,
    text: Text = None,
    task: TaskOption = None,
    group: Group = None,
    params: Annotated[
        Path | None, typer.Option("--params", metavar="FILE", help="The parameter file to write. Default: models/NAME/params.yaml.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The registered model's name. Default: the name of the data file.")] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="How training settings are chosen: a portfolio within minutes, a declared search, or fixed values.")
    ] = "auto",
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Budget of the search.", show_default="15 for auto, 3 for search")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing parameter file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a params.yaml for a data file.

    Guesses the task and the columns from names and values, and shows what else fits. On a terminal it asks which column has the labels if
    the names do not decide. Settings that it does not write have the defaults in docs/settings.md.

    Example: `retune init reviews.csv --label stars`
    """
    from flows.project.auto_params import check_name, new_model_file
    from flows.project.init_params import slug, write_params

    try:
        project: Path | None = find_project(Path.cwd().resolve())
    except NotFound:
        project = None
    if params is None:
        params = Path(os.path.relpath(new_model_file(data, project, name))) if project else Path("params.yaml")
    if project and data.exists():
        check_name(params, name or slug(data.stem), project)
    choice = wanted(label, text, task, group)
    ask = None if as_json else asks()
    guess = write_params(data, params, name=name, force=force, strategy=strategy, minutes=minutes, wanted=choice, ask=ask)
    missing = missing_commit(Path.cwd())
    record = {"params": str(params), "task": guess.task, "task_options": dict(guess.shape.options), "columns": guess.columns}
    before = f"Before a run: {missing}\n" if missing else ""
    text_shown = f"{params}: {described(guess)}\n{before}Review it, then: retune run{model_option(params)}"
    show(record | {"notes": guess.notes, "others": guess.others, "missing": missing}, text_shown, as_json)


@app.command(rich_help_panel=START)
def convert(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A file or folder of another format.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .jsonl file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a file or folder of another format to JSON lines.

    Recognises CoNLL and CoNLL-U, SQuAD, a Label Studio export, fastText, JSON by columns, a folder with a folder of texts for each class,
    and a table with a column of 0 and 1 for each label.

    Example: `retune convert train.conll train.jsonl`
    """
    from flows.project.convert import convert as write_rows

    form, rows = write_rows(data, output, force)
    show(
        {"format": form, "rows": rows, "out": str(output)},
        f"{output}: {rows:,} rows of {form}\nThen: retune init {quote(str(output))}",
        as_json,
    )


def wanted(label: str | None, text: list[str] | None, task: str | None, group: str | None) -> "Wanted":
    """Return what the options choose."""
    from flows.project.guessing import Wanted

    return Wanted(label, tuple(text or ()), task, group)


def asks() -> "Callable[[Guess], str] | None":
    """Return the function that asks for the column with the labels; None unless a person reads and writes on a terminal."""
    return _ask if sys.stdin.isatty() and sys.stdout.isatty() else None


def _ask(guess: "Guess") -> str:
    out.print(described(guess), markup=False)
    default = guess.columns[guess.shape.columns[-1]]
    return str(typer.prompt("Which column has the labels?", default=default, type=click.Choice(guess.labels)))


def described(guess: "Guess") -> str:
    """Return the guess, its notes, and the options for what else fits."""
    from flows.project.guessing.notes import CHOOSE

    notes = [f"- {note}" for note in guess.notes]
    others = [f"What else fits ({CHOOSE}):", *(f"  {other}" for other in guess.others)] if guess.others else []
    return "\n".join([str(guess), *notes, *others])


def model_option(params: Path) -> str:
    """Return the option of `retune run` for a new parameter file: the model's folder in models/, or the file."""
    if params.name == "params.yaml" and params.parent.parent.resolve() == Path(MODELS).resolve():
        return f" --model {quote(params.parent.name)}"
    return "" if params == Path("params.yaml") else f" --params {quote(str(params))}"


def missing_commit(folder: Path) -> str:
    """Return why a run could not record a commit; empty if there is one."""
    from flows.project.git import head_commit, no_commit

    try:
        return "" if head_commit(folder) else no_commit(folder)
    except RetuneError as error:
        return str(error)
