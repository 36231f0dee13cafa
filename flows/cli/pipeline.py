"""The commands that run the pipeline or one of its steps."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from components.core.errors import BadParams
from flows.cli.options import (
    PIPELINE,
    START,
    AsJson,
    Inline,
    ModelName,
    ModelVersion,
    ParamsFile,
    app,
    chosen_version,
    out,
    print_json,
    print_table,
    replaced_option,
    show,
)
from flows.project.models import open_model
from flows.project.workspace import find_project

if TYPE_CHECKING:
    from flows.pipeline.actions import Result


@app.command(rich_help_panel=PIPELINE)
def snapshot(
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="Data to use instead of `snapshot.source`: a file, a glob, a folder or a URI.")
    ] = None,
    params: ParamsFile = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Take a snapshot of the data and the base model.

    `dvc repro` needs nothing else afterwards.

    Example: `retune snapshot new-labels.csv`
    """
    from flows.pipeline import actions
    from flows.run import locked_workspace

    with locked_workspace(model, params) as workspace:
        data = actions.snapshot(workspace, source)
        base = actions.pin_base(workspace)
        actions.put_under_dvc(workspace)
    record = {
        "data": {"digest": data.digest, "rows": data.rows, "source": data.source, "taken_at": data.taken_at},
        "base": {"digest": base.digest, "source": base.source, "files": len(base.parts)},
    }
    text = f"data: {data.rows:,} rows from {data.source}, snapshot {data.digest[:12]} of {data.taken_at}"
    show(record, f"{text}\nbase: {base.source}, {len(base.parts)} files, {base.digest[:12]}", as_json)


@app.command(rich_help_panel=PIPELINE)
def run(
    params: ParamsFile = None,
    model: ModelName = None,
    every: Annotated[bool, typer.Option("--all", help="Run every model of the project, one after the other.")] = False,
    inline: Inline = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline, from snapshot to verdict.

    Steps: snapshot, validate, preprocess, tune, train, evaluate, record, register, judge, promote. Steps that are up to date are skipped.
    Exits 0 when a verdict was reached, whatever it is; with --all, for every model.

    Example: `retune run --inline`
    """
    from flows.run import run_retrain

    if every:
        raise typer.Exit(show_all(params, model, inline, as_json))
    result = run_retrain(open_model(model, params), inline=inline)
    print_json(result) if as_json else show_result(result)


def show_result(result: "Result") -> None:
    """Print the verdict, the champion, the page of a run, and the next step."""
    from flows.pipeline.publish_report import next_step

    kept = "judged again, still the champion" if result.champion == result.version else "registered, not promoted"
    state = "promoted" if result.promoted else "up to date" if result.up_to_date else kept
    champion = f"the champion is version {result.champion}" if result.champion else "there is no champion yet"
    out.print(f"\n[bold]{result.outcome}[/bold]  {escape(result.reason)}")
    out.print(f"{result.model} version {result.version}: {state}; {champion}")
    out.print(f"Report: {result.page}")
    out.print(f"Next: {next_step(result)}", markup=False)


def show_all(params: Path | None, model: str | None, inline: bool, as_json: bool) -> int:
    """Run every model of the project and print the results; return the exit code of the first that failed."""
    from flows.run import run_all

    if params is not None or model is not None:
        raise BadParams("--all runs every model of the project: remove --params and --model")
    runs = run_all(find_project(Path.cwd().resolve()), inline)
    if as_json:
        print_json({"models": [asdict(run) for run in runs]})
    else:
        rows = [(run.model, str(run.version or "–"), run.outcome, escape(run.reason)) for run in runs]
        print_table(("model", "version", "outcome", "reason"), rows)
    return next((run.exit_code for run in runs if run.exit_code), 0)


@app.command(rich_help_panel=PIPELINE)
def judge(
    params: ParamsFile = None,
    model: ModelName = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge again even if there is a verdict; uses no more of the test-set budget.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge the evaluated candidate against the champion.

    Registers the candidate and applies the current gates; trains and promotes nothing. Exits 0 for PASS, 3 for FAIL, 4 for INCONCLUSIVE.

    Example: `retune judge --json`
    """
    from components.artifacts.verdict import Outcome
    from flows.pipeline import actions
    from flows.pipeline.judge import judge as run_gates
    from flows.run import locked_workspace

    with locked_workspace(model, params) as workspace:
        version = actions.register(workspace, actions.record(workspace, ()))
        verdict = run_gates(workspace, version, again).verdict
    if as_json:
        print_json(verdict)
    else:
        print_table(("gate", "role", "outcome", "reason"), [(g.gate, g.role, g.outcome, escape(g.reason)) for g in verdict.gates])
        out.print(f"\n[bold]{verdict.outcome}[/bold]  {escape(verdict.reason)}")
        out.print(f"Next: `retune why {version.name} {version.number}` shows the evidence; `retune run` applies the verdict", markup=False)
    raise typer.Exit({Outcome.PASS: 0, Outcome.FAIL: 3, Outcome.INCONCLUSIVE: 4}[verdict.outcome])


@app.command(rich_help_panel=PIPELINE)
def register(params: ParamsFile = None, model: ModelName = None, as_json: AsJson = False) -> None:
    """Register the evaluated candidate without judging it.

    The same model and data give the same version.

    Example: `retune register`
    """
    from flows.pipeline import actions
    from flows.run import locked_workspace

    with locked_workspace(model, params) as workspace:
        version = actions.register(workspace, actions.record(workspace, ()))
    record = {"model": version.name, "version": version.number, "created": version.created, "verdict": version.verdict}
    state = "registered" if version.created else "was already registered"
    show(record, f"{version.name} version {version.number} {state}, verdict {version.verdict or 'none yet: `retune judge`'}", as_json)


@app.command(rich_help_panel=PIPELINE)
def pseudo_label(
    unlabelled: Annotated[
        Path, typer.Argument(metavar="UNLABELLED", help="A file of rows without labels, with the columns of the labelled data.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .csv, .tsv, .jsonl or .parquet.")],
    model: ModelName = None,
    model_version: ModelVersion = "",
    min_probability: Annotated[float | None, typer.Option(help="The minimum probability of a written label.", show_default="0.95")] = None,
    params: ParamsFile = None,
    as_json: AsJson = False,
    old_floor: Annotated[float | None, typer.Option("--floor", hidden=True)] = None,
) -> None:
    """Label rows that a model is confident about.

    Pseudo-labelled rows are marked, and used for training only.

    Example: `retune pseudo-label unlabelled.csv data/pseudo.csv --model-version diagnosis@champion --min-probability 0.95`
    """
    from flows.pipeline import pseudo_label as labelling
    from flows.project.stores import store

    if old_floor is not None:
        replaced_option("--floor", "--min-probability")
    given = (probability for probability in (min_probability, old_floor, 0.95) if probability is not None)
    model, version = chosen_version(model, model_version)
    workspace = open_model(model, params)
    labelled = labelling.pseudo_label(workspace, store(workspace), unlabelled, output, version, next(given))
    if as_json:
        print_json(labelled)
        return
    written = sum(labelled.labels.values())
    out.print(
        f"{output}: {written:,} of {labelled.rows:,} rows, labelled by {labelled.version} with a probability of at least {labelled.floor:g}"
    )
    for label, count in labelled.labels.items():
        out.print(f"  {count:6,} {label}", markup=False)
    blank = f"; {labelled.blank:,} without a text" if labelled.blank else ""
    out.print(f"{labelled.below:,} below the minimum probability{blank}", markup=False)


@app.command(rich_help_panel=START)
def doctor(params: ParamsFile = None, model: ModelName = None, as_json: AsJson = False) -> None:
    """Check that a run has everything that it needs.

    Prints one line per check: ok, or what to fix. Exits 1 if a check fails.

    Example: `retune doctor`
    """
    from flows.doctor import examine

    findings = []
    for finding in examine(open_model(model, params)):
        findings.append(finding)
        if not as_json:
            out.print(f"{'ok  ' if finding.ok else 'FIX '} {finding.name}: {finding.message}", markup=False)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
