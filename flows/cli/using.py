"""The commands that put a version to use."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from flows.cli.terminal import AsJson, ParamsFile, app, out, print_json
from flows.workspace import open_workspace


@app.command()
def score(
    given: Annotated[
        str, typer.Argument(metavar="INPUT", help="A CSV, TSV, JSONL or Parquet file, a glob, a folder, or sql://NAME/TABLE.")
    ],
    output: Annotated[str, typer.Argument(help="The folder to write, or sql://NAME/TABLE; {date} and {time} are filled in, UTC.")],
    model: Annotated[str, typer.Option(help="NAME@ALIAS or NAME/VERSION; this project's champion when left out.")] = "",
    column: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=COLUMN", help="The column of an input, as text=description; may be repeated.")
    ] = None,
    on_bad_row: Annotated[
        Literal["error", "quarantine"], typer.Option(help="Of a row without a text: end before anything is scored, or put it aside.")
    ] = "error",
    rows_per_part: Annotated[int, typer.Option(min=1, help="Rows of a part, which are held in memory.")] = 10_000,
    prefix: Annotated[str, typer.Option(help="What stands before the names of the answers' columns.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Remove what an earlier `retune score` wrote there, and begin anew.")] = False,
    params: ParamsFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a version answer every row: all columns and the answers, in order, in parts that are written once.

    The same command goes on where it was killed. An alias is followed once, when the first part is begun.

    Example: `retune score new.parquet scored/ --model diagnosis@champion`
    """
    from components.batch import Settings
    from flows import scoring

    settings = Settings(rows_per_part, on_bad_row, prefix, scoring.read_columns(column or []))
    place = scoring.expand(output, datetime.now(UTC))
    manifest = scoring.score(open_workspace(params), given, place, model, settings, replace)
    if as_json:
        print_json(manifest)
        return
    parts = f" in {len(manifest.parts)} part{'s' * (len(manifest.parts) > 1)}" if manifest.parts else ""
    aside = f", {manifest.quarantined:,} in quarantine" if manifest.quarantined else ""
    out.print(f"{place}: {manifest.scored:,} of {manifest.rows:,} rows scored by {manifest.model_uri}{parts}{aside}", markup=False)
