"""The commands that make a model: settings, data, the whole line and its steps."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from components.core.errors import BadInput, RetuneError
from flows.cli.options import AsJson, Inline, ModelName, ParamsFile, app, out, print_json
from flows.project.workspace import open_workspace


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="A CSV, TSV, JSONL or Parquet file with one labelled example a row.")],
    params: Annotated[Path, typer.Option("--params", metavar="FILE", help="Where to write the settings.")] = Path("params.yaml"),
    name: Annotated[str | None, typer.Option(help="The registered model's name; the file's name when left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a parameter file that is there.")] = False,
) -> None:
    """Look at a data file, guess its columns, and write a commented parameter file.

    Example: `retune init tickets.csv --params models/tickets/params.yaml`
    """
    from flows.project.init_params import write_params

    guess = write_params(data, params, name=name, force=force)
    out.print(f"{params}: {guess}")
    if lacking := without_commit(Path.cwd()):
        out.print(f"Before a run: {lacking}", markup=False)
    out.print(f"Look it over, then: retune run{'' if params == Path('params.yaml') else f' --params {params}'}")


def without_commit(folder: Path) -> str:
    """Return what keeps a run from naming the commit that a model was made at; nothing where there is one."""
    from flows.project.git import head_commit, no_commit

    try:
        return "" if head_commit(folder) else no_commit(folder)
    except RetuneError as error:
        return str(error)


@app.command()
def snapshot(
    source: Annotated[str | None, typer.Argument(help="Data instead of `snapshot.source`: a file, a glob, a folder, an address.")] = None,
    params: ParamsFile = None,
    model: ModelName = None,
) -> None:
    """Pin what lies outside: the data and the base model. After this `dvc repro` has all it needs.

    Example: `retune snapshot new-labels.csv`
    """
    from flows.pipeline import actions
    from flows.project.models import open_model
    from flows.run import single_process

    workspace = open_model(model, params)
    with single_process(workspace):
        data = actions.take_snapshot(workspace, source)
        base = actions.pin_base(workspace)
        actions.put_under_dvc(workspace)
    out.print(f"data: {data.rows:,} rows from {data.source}, snapshot {data.digest[:12]} of {data.taken_at}")
    out.print(f"base: {base.source}, {len(base.parts)} files, {base.digest[:12]}")


@app.command()
def run(
    params: ParamsFile = None,
    model: ModelName = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the project, one after the other.")] = False,
    inline: Inline = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole line: snapshot, validate, preprocess, tune, train, evaluate, record, register, judge, promote.

    What is up to date is not done again. Exits 0 when a verdict was reached, whichever it is; with --all, for every model.

    Example: `retune run --inline`
    """
    from flows.project.models import open_model
    from flows.run import run_retrain

    if every:
        raise typer.Exit(show_all(params, model, inline, as_json))
    result = run_retrain(open_model(model, params), inline=inline)
    if as_json:
        print_json(result)
        return
    kept = "judged again, still the champion" if result.champion == result.version else "registered, not promoted"
    state = "promoted" if result.promoted else "up to date" if result.up_to_date else kept
    out.print(f"\n[bold]{result.outcome}[/bold]  {escape(result.reason)}")
    out.print(f"{result.model} version {result.version}: {state}; the champion is {result.champion or 'nobody yet'}")
    if result.waits_until is not None:
        until = result.waits_until.strftime("%Y-%m-%d %H:%M UTC")
        out.print(f"It waits for a person until {until}: retune approve {result.run[:12]} --why …, or reject")
    out.print(f"Read: {result.page}")


def show_all(params: Path | None, model: str | None, inline: bool, as_json: bool) -> int:
    """Run every model of the project and print how each ended; return the exit code: that of the first that failed."""
    from components.core.errors import BadParams
    from flows.project.workspace import find_project
    from flows.run import run_all

    if params is not None or model is not None:
        raise BadParams("--all takes every model of the project: leave out --params and --model")
    ended = run_all(find_project(Path.cwd().resolve()), inline)
    if as_json:
        print_json({"models": [asdict(one) for one in ended]})
    else:
        table = Table("model", "version", "outcome", "reason", box=None, pad_edge=False)
        for one in ended:
            table.add_row(one.model, str(one.version or "–"), one.outcome, escape(one.reason))
        out.print(table)
    return next((one.exit_code for one in ended if one.exit_code), 0)


@app.command()
def judge(
    params: ParamsFile = None,
    model: ModelName = None,
    again: Annotated[bool, typer.Option("--again", help="Judge anew where a verdict stands; it is the same look.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register the evaluated candidate and judge it against the champion under today's gates, without training or promoting anything.

    Exits 0 for PASS, 3 for FAIL, 4 for INCONCLUSIVE.

    Example: `retune judge --json`
    """
    from components.artifacts.verdict import Outcome
    from flows.pipeline import actions
    from flows.project.models import open_model
    from flows.run import single_process

    workspace = open_model(model, params)
    with single_process(workspace):
        verdict = actions.judge(workspace, actions.register(workspace, actions.record(workspace, ())), again).verdict
    if as_json:
        print_json(verdict)
    else:
        table = Table("gate", "role", "outcome", "reason", box=None, pad_edge=False)
        for gate in verdict.gates:
            table.add_row(gate.gate, gate.role, gate.shown, escape(gate.reason))
        out.print(table)
        out.print(f"\n[bold]{verdict.outcome}[/bold]  {escape(verdict.reason)}")
    raise typer.Exit({Outcome.PASS: 0, Outcome.FAIL: 3, Outcome.INCONCLUSIVE: 4}[verdict.outcome])


@app.command()
def register(params: ParamsFile = None, model: ModelName = None, as_json: AsJson = False) -> None:
    """Register the evaluated candidate, to be judged; the same model and data give the same version.

    Example: `retune register`
    """
    from flows.pipeline import actions
    from flows.project.models import open_model
    from flows.run import single_process

    workspace = open_model(model, params)
    with single_process(workspace):
        version = actions.register(workspace, actions.record(workspace, ()))
    if as_json:
        print_json({"model": version.name, "version": version.number, "created": version.created, "verdict": version.verdict})
    else:
        state = "registered" if version.created else "was registered before"
        out.print(f"{version.name} version {version.number} {state}, verdict {version.verdict or 'none yet: `retune judge`'}")


@app.command()
def predict(
    texts: Annotated[
        list[str],
        typer.Argument(help="Texts, or JSON objects where a task has several inputs; `-`: one a line from standard input."),
    ],
    params: ParamsFile = None,
    model: Annotated[str, typer.Option(help="A version number or an alias.")] = "champion",
    as_json: AsJson = False,
) -> None:
    """Ask the champion.

    Example: `retune predict "Acute appendicitis with perforation"`
    """
    from flows.pipeline import actions

    asked = read_lines() if texts == ["-"] else texts
    answers = actions.predict(open_workspace(params), model, asked)
    if as_json:
        print_json(answers)
        return
    shown = [name for name in ("label", "probability", "answer") if name in answers[0]] if answers else []
    columns = [*shown, *(name for name in (answers[0] if answers else {}) if name not in (*shown, "probabilities"))]
    table = Table(*columns, box=None, pad_edge=False)
    for answer in answers:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell := answer[name], float) else str(cell) for name in columns))
    out.print(table)


def read_lines() -> list[str]:
    """Return the lines of standard input.

    Raises:
        BadInput: one of them is not UTF-8.
    """
    found = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            found.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise BadInput(f"line {number} of standard input is not UTF-8: it holds the byte 0x{line[error.start]:02x}") from None
    return found


@app.command()
def pseudo_label(
    unlabelled: Annotated[Path, typer.Argument(help="A file of rows without labels, with the columns of the labelled data.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .csv, .tsv, .jsonl or .parquet.")],
    model: Annotated[str, typer.Option(help="NAME@ALIAS or NAME/VERSION; this project's champion when left out.")] = "",
    floor: Annotated[float, typer.Option(help="The least probability of an answer that is written.")] = 0.95,
    params: ParamsFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a version label rows where it is confident; they are marked, and only ever trained on.

    Example: `retune pseudo-label unlabelled.csv data/pseudo.csv --model diagnosis@champion --floor 0.95`
    """
    from flows.pipeline import actions

    found = actions.pseudo_label(open_workspace(params), unlabelled, output, model, floor)
    if as_json:
        print_json(found)
        return
    written = sum(found.labels.values())
    out.print(f"{output}: {written:,} of {found.rows:,} rows, labelled by {found.version} with a probability of {found.floor:g} or more")
    for label, count in found.labels.items():
        out.print(f"  {count:6,} {label}", markup=False)
    blank = f"; {found.blank:,} without a text" if found.blank else ""
    out.print(f"{found.below:,} fell below{blank}", markup=False)


@app.command()
def doctor(params: ParamsFile = None, model: ModelName = None) -> None:
    """Check what a run needs: versions, base model, disk, writable state, DVC, MLflow, Prefect. A line each: ok, or what to do.

    Example: `retune doctor`
    """
    from flows.doctor import examine
    from flows.project.models import open_model

    bad = 0
    for finding in examine(open_model(model, params)):
        out.print(f"{'ok  ' if finding.ok else 'FIX '} {finding.name}: {finding.says}", markup=False)
        bad += not finding.ok
    raise typer.Exit(1 if bad else 0)
