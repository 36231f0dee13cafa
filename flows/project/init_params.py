"""`retune init`: write a commented params.yaml with the settings that are guessed for a data file."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jinja2

from components.core.atomic import replacing
from components.core.errors import BadParams
from flows.project.guessing import NOTHING_WANTED, Guess, Wanted, check_exists, guess_columns
from flows.project.params import read_params

MINUTES = {"auto": 15.0, "search": 3.0}  # default budget by strategy


def write_params(
    data: Path,
    params: Path,
    *,
    name: str | None,
    force: bool,
    strategy: str = "auto",
    minutes: float | None = None,
    wanted: Wanted = NOTHING_WANTED,
    ask: Callable[[Guess], str] | None = None,
) -> Guess:
    """Guess the settings, within what the user has chosen, and write the parameter file atomically.

    `minutes` are the budget of the search. `ask` returns one of `Guess.labels`; it is called if the names of the columns do not decide.

    Raises:
        BadSource: the file cannot be read, or no column looks like a text or a label.
        BadParams: the parameter file exists and `force` is not set, the name is invalid, or the data is not a file.
    """
    if data.parts and data.parts[0].endswith(":"):  # a URI such as s3://…
        raise BadParams(f"{data.parts[0]}// is a URI, expected a file: give one with a few rows, then set snapshot.source")
    if strategy == "none" and minutes is not None:
        raise BadParams("--minutes is the budget of a search: --strategy none has none")
    check_exists(data)
    if params.is_dir():
        raise BadParams(f"{params} is a folder: --params is the file to write, e.g. {params / 'params.yaml'}")
    if params.exists() and not force:
        raise BadParams(f"{params} exists; --force replaces it, --params FILE writes another file")
    guess = guess_columns(data, wanted)
    if ask and len(guess.labels) > 1:
        guess = guess_columns(data, replace(wanted, label=ask(guess)))
    folder = params.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParams(f"{params} cannot be written: {error.strerror}: {error.filename}") from None
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # YAML has no surrogate pairs
    source = Path(os.path.relpath(data.resolve(), folder)).as_posix()
    text = templates.get_template("params.yaml.j2").render(
        name=name or slug(data.stem),
        source=source,
        guess=guess,
        strategy=strategy,
        minutes=number_text(minutes or MINUTES.get(strategy, 0)),
    )
    with replacing(params) as partial:
        partial.write_text(text, encoding="utf-8")
        read_params(partial)
    return guess


def number_text(number: float) -> str:
    """Return a number as YAML that reads as the same number; without decimals if it is whole."""
    return str(int(number)) if float(number).is_integer() else repr(number)


def slug(text: str) -> str:
    """Return `text` as a model name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"
