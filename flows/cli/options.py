"""The application, the options that commands share, and the output functions."""

import importlib.metadata
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.core.exits import DEBUG
from components.core.section import warn_once

START, PIPELINE, PROMOTE, INSPECT, SERVE = "Start", "Pipeline", "Promote", "Inspect", "Serve"
SCHEDULE, MAINTAIN = "Schedule", "Maintain"  # the groups of commands in `retune --help`

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Retrain, gate and register transformer models from labelled data, reproducibly.",
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"retune {importlib.metadata.version('retune')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log debug messages too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error. Also: RETUNE_DEBUG=1.")] = False,
) -> None:
    """Apply the options of the application; stages are separate processes and inherit `--debug` through the environment."""
    if quiet and verbose:
        raise typer.BadParameter("give --quiet or --verbose, not both")
    if debug:
        os.environ[DEBUG] = "1"
    if quiet or verbose:
        for package in ("components", "flows"):
            logging.getLogger(package).setLevel(logging.WARNING if quiet else logging.DEBUG)


out = Console(highlight=False, soft_wrap=True)

ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="Parameter file. A file that is not the project's gets a separate workspace."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="A model of this project: its registered name or its folder in models/.")
]
ModelVersion = Annotated[
    str, typer.Option("--model-version", metavar="VERSION", help="NAME@ALIAS or NAME/VERSION. Default: the champion of the model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Inline = Annotated[bool, typer.Option("--inline", help="Run without Prefect: no server, no run page.")]


def replaced_option(old: str, new: str) -> None:
    """Log that an option was renamed; the old name works for one release."""
    warn_once(f"{old} is now {new}; the old name works in this release only")


def chosen_version(model: str | None, version: str) -> tuple[str | None, str]:
    """Return the values of `--model` and `--model-version`; NAME@ALIAS or NAME/VERSION as `--model` is the use before this release."""
    if model is None or not {"@", "/"} & set(model):
        return model, version
    if version:
        raise typer.BadParameter("--model is the old name of --model-version: give --model-version only")
    replaced_option("--model", "--model-version")
    return None, model


def print_json(value: Any) -> None:
    """Print a record or a list as JSON on standard output; NaN and infinities as null."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    text = json.dumps(value, default=str)  # with NaN and Infinity, which are not JSON
    print(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2, ensure_ascii=False))


def show(record: Any, text: str, as_json: bool) -> None:
    """Print a record as JSON, or as text."""
    if as_json:
        print_json(record)
    else:
        out.print(text, markup=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that is as wide as the terminal."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out.print(table)
