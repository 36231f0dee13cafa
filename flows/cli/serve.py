"""The commands that use a version: for a few texts, for many rows, or over HTTP."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from components.core.errors import BadInput
from flows.cli.options import (
    SERVE,
    AsJson,
    ModelName,
    ModelVersion,
    ParamsFile,
    app,
    chosen_version,
    print_json,
    print_table,
    replaced_option,
    show,
)
from flows.project.models import open_model
from flows.project.workspace import Workspace, open_project

ALIASES = ("champion", "challenger", "previous")


@app.command(rich_help_panel=SERVE)
def predict(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXTS", help="Texts, or JSON objects for a task with several inputs; `-` reads one per line from standard input."
        ),
    ],
    params: ParamsFile = None,
    model: ModelName = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="A version number or an alias.", show_default="champion")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict a few texts with a registered version.

    Example: `retune predict "Acute appendicitis with perforation"`
    """
    from flows.batch_scoring import scoring

    workspace, version = chosen_model(params, model, version)
    answers = scoring.predict(workspace, version, read_lines() if texts == ["-"] else texts)
    if as_json:
        print_json(answers)
        return
    first = [name for name in ("label", "probability", "answer") if name in answers[0]] if answers else []
    columns = [*first, *(name for name in (answers[0] if answers else {}) if name not in (*first, "probabilities"))]
    print_table(columns, ([f"{cell:.3f}" if isinstance(cell := row[name], float) else str(cell) for name in columns] for row in answers))


def chosen_model(params: Path | None, model: str | None, version: str | None) -> tuple[Workspace, str]:
    """Return the workspace of a model, and the number or alias of its version; a version as `--model` is the use before this release."""
    if model is not None and version is None and (model.isdigit() or model in ALIASES):
        replaced_option(f"--model {model}", f"--version {model}")
        model, version = None, model
    return open_model(model, params), version or "champion"


def read_lines() -> list[str]:
    """Return the lines of standard input, which must be UTF-8."""
    lines = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            lines.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise BadInput(f"line {number} of standard input is not UTF-8: it contains the byte 0x{line[error.start]:02x}") from None
    return lines


@app.command(rich_help_panel=SERVE)
def score(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A CSV, TSV, JSONL or Parquet file, a glob, a folder, sql://NAME/TABLE, s3://…, hub://….")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The output folder, or sql://NAME/TABLE; {date} and {time} are replaced, in UTC.")
    ],
    model: ModelName = None,
    model_version: ModelVersion = "",
    column: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=COLUMN", help="The column of an input, e.g. text=description; repeatable.")
    ] = None,
    on_bad_row: Annotated[
        Literal["error", "quarantine"], typer.Option(help="For a row without a text: fail before scoring starts, or set the row aside.")
    ] = "error",
    rows_per_part: Annotated[int, typer.Option(min=1, help="Rows per part; a part is held in memory.")] = 10_000,
    prefix: Annotated[str, typer.Option(help="Prefix of the output columns.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Remove the output of an earlier `retune score` and start over.")] = False,
    params: ParamsFile = None,
    as_json: AsJson = False,
) -> None:
    """Score every row of a table with a registered version.

    Writes all columns and the predictions, in order, in parts that are each written once. The same command resumes after an
    interruption. An alias is resolved once, when the first part is started.

    Example: `retune score new.parquet scored/ --model-version diagnosis@champion`
    """
    from components.serving.batch import ScoringSettings
    from flows.batch_scoring import scoring

    settings = ScoringSettings(rows_per_part, on_bad_row, prefix, scoring.read_columns(column or []))
    target = scoring.expand(output, datetime.now(UTC))
    model, version = chosen_version(model, model_version)
    manifest = scoring.score(open_model(model, params), source, target, version, settings, replace)
    parts = f" in {len(manifest.parts)} part{'s' * (len(manifest.parts) > 1)}" if manifest.parts else ""
    quarantined = f", {manifest.quarantined:,} in quarantine" if manifest.quarantined else ""
    text = f"{target}: {manifest.scored:,} of {manifest.rows:,} rows scored by {manifest.model_uri}{parts}{quarantined}"
    show(manifest, text, as_json)


@app.command(rich_help_panel=SERVE)
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@ALIAS or NAME/VERSION; NAME alone means its champion.")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 5001,
    host: Annotated[str, typer.Option(help="The address to listen on. There is no authentication.")] = "127.0.0.1",
    max_body_kib: Annotated[int, typer.Option(min=1, help="Maximum size of a request body, in KiB.")] = 1_024,
    max_rows: Annotated[int, typer.Option(min=1, help="Maximum rows per request.")] = 1_000,
    max_characters: Annotated[int, typer.Option(min=1, help="Maximum characters per text.")] = 20_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Maximum concurrent requests; one is processed, the others wait.")] = 32,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Maximum open connections; at the limit the slowest sender is disconnected.")
    ] = 256,
    head_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that a client may take to send the request head.")] = 10.0,
    body_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a client may take to send the body, or to read the response.")
    ] = 30.0,
    name: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Another host name that clients use, e.g. behind a proxy; repeatable.")
    ] = None,
) -> None:
    """Serve a registered version over HTTP until Ctrl-C.

    Runs the code that was packaged with the version; an alias is resolved once, at the start. POST /invocations accepts MLflow's JSON
    formats; /ping and /health report readiness, /version reports the version.

    Example: `retune serve diagnosis@champion --port 5001`
    """
    from components.mlflow_store import registry
    from components.serving.http.start import become_server, listen
    from flows.project.stores import store

    uri = store(open_project())
    reference = model.removeprefix("models:/")
    version = registry.resolve(uri, reference)
    alias = None if "/" in reference else reference.partition("@")[2] or registry.CHAMPION
    limits = {"body_kib": max_body_kib, "rows": max_rows, "characters": max_characters, "waiting": max_waiting}
    slow = {"connections": max_connections, "head_seconds": head_seconds, "body_seconds": body_seconds}
    become_server(uri, version, alias, listen(host, port), limits | slow, name or [])
