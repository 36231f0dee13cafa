"""What the commands share: the application, the options that all have, and how a result is printed."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from components.core.exits import DEBUG

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn a labelled dataset and a pretrained transformer into a gated, registered, reproducible model, again and again.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the trace of an error. Also: RETUNE_DEBUG=1.")] = False,
) -> None:
    """Take the options that stand before the command; stages, which are processes of their own, get them too."""
    if debug:
        os.environ[DEBUG] = "1"


out = Console(highlight=False, soft_wrap=True)

ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="Parameter file. Another one than the project's gets a workspace of its own."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="A model of this project: its name in the registry, or its folder in models/.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table for a person.")]
Inline = Annotated[bool, typer.Option("--inline", help="Tell the same story without Prefect: no server, no run page.")]


def print_json(value: Any) -> None:
    """Print a record, or a list of them, as JSON on standard output."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def interval(estimate: dict[str, float]) -> str:
    """Return an estimate as `0.751 (95 % interval 0.731–0.770)`."""
    return f"{estimate['value']:.3f} (95 % interval {estimate['low']:.3f}–{estimate['high']:.3f})"
