"""The commands that put a version to use: many rows at once, or behind HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from flows.cli.options import AsJson, ParamsFile, app, out, print_json
from flows.project.workspace import open_workspace

Served = Annotated[str, typer.Argument(metavar="MODEL", help="NAME@ALIAS or NAME/VERSION; NAME alone is its champion.")]


@app.command()
def score(
    given: Annotated[
        str, typer.Argument(metavar="INPUT", help="A CSV, TSV, JSONL or Parquet file, a glob, a folder, sql://NAME/TABLE, s3://…, hub://….")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The folder to write, or sql://NAME/TABLE; {date} and {time} are filled in, UTC.")
    ],
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
    from components.serving.batch import ScoringSettings
    from flows.batch_scoring import scoring

    settings = ScoringSettings(rows_per_part, on_bad_row, prefix, scoring.read_columns(column or []))
    place = scoring.expand(output, datetime.now(UTC))
    manifest = scoring.score(open_workspace(params), given, place, model, settings, replace)
    if as_json:
        print_json(manifest)
        return
    parts = f" in {len(manifest.parts)} part{'s' * (len(manifest.parts) > 1)}" if manifest.parts else ""
    aside = f", {manifest.quarantined:,} in quarantine" if manifest.quarantined else ""
    out.print(f"{place}: {manifest.scored:,} of {manifest.rows:,} rows scored by {manifest.model_uri}{parts}{aside}", markup=False)


@app.command()
def serve(
    model: Served,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 5001,
    host: Annotated[str, typer.Option(help="The address to listen on. There are no accounts: whoever reaches it may ask.")] = "127.0.0.1",
    max_body_kib: Annotated[int, typer.Option(min=1, help="KiB of a request's body.")] = 1_024,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 1_000,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 20_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests at once; one is answered, the others wait.")] = 32,
    max_connections: Annotated[int, typer.Option(min=1, help="Open connections; at the limit, the slowest sender is hung up on.")] = 256,
    head_seconds: Annotated[float, typer.Option(min=0.1, help="That a client may take to send the head of a request.")] = 10.0,
    body_seconds: Annotated[float, typer.Option(min=0.1, help="That a client may take to send its body, or to read its answer.")] = 30.0,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A further host name by which clients call it, as behind a proxy; may be repeated."),
    ] = None,
) -> None:
    """Serve a version over HTTP by the code it was packaged with, until Ctrl-C; which one is decided at the start.

    POST /invocations takes JSON in MLflow's forms; /ping and /health say that it is up, /version which version answers.

    Example: `retune serve diagnosis@champion --port 5001`
    """
    from components.mlflow_store import registry
    from components.serving.http.start import become_server, listen
    from flows.audit.registered_model import open_project
    from flows.project.stores import store

    uri = store(open_project())
    named = model.removeprefix("models:/")
    version = registry.resolve(uri, named)
    alias = None if "/" in named else named.partition("@")[2] or registry.CHAMPION
    limits = {"body_kib": max_body_kib, "rows": max_rows, "characters": max_characters, "waiting": max_waiting}
    slow = {"connections": max_connections, "head_seconds": head_seconds, "body_seconds": body_seconds}
    become_server(uri, version, alias, listen(host, port), limits | slow, name or [])
