"""The commands that compare two versions and trace a version or data."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from components.core.errors import listed
from flows.cli.inspect import show_table
from flows.cli.options import INSPECT, AsJson, app, out, print_json
from flows.cli.promotion import EnvironmentName, Name

if TYPE_CHECKING:
    from components.artifacts.metrics import Estimate
    from components.report.error_analysis import AnswerChange
    from flows.audit.diff import Data, Diff, Scores
    from flows.audit.lineage import Sightings, Trail

SHOWN = 10  # rows per list


@app.command(rich_help_panel=INSPECT)
def diff(
    name: Name,
    before: Annotated[int, typer.Argument(metavar="V1", help="The older version.")],
    after: Annotated[int, typer.Argument(metavar="V2", help="The newer version; both are measured on its test set.")],
    everything: Annotated[bool, typer.Option("--all", help="Show every fixed, broken and changed row.")] = False,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Compare two versions of a model.

    Compares metrics with intervals, fixed and broken rows, settings and data.

    Example: `retune diff diagnosis 2 3`
    """
    from flows.audit.diff import diff as compare
    from flows.audit.registered_model import open_model

    comparison = compare(open_model(name, environment), before, after)
    print_json(comparison) if as_json else _show_diff(comparison, None if everything else SHOWN)


def _show_diff(comparison: "Diff", limit: int | None) -> None:
    if comparison.scores:
        _show_scores(comparison, comparison.scores, limit)
    else:
        out.print(f"the predictions cannot be compared: {comparison.lost}", markup=False)
    out.print(f"\n[bold]settings[/bold]{'' if comparison.params else ' are the same'}")
    for name, (old, new) in comparison.params.items():
        out.print(f"  {name}: {old} → {new}", markup=False)
    _show_data(comparison.data, limit)


def _show_scores(comparison: "Diff", scores: "Scores", limit: int | None) -> None:
    def cell(estimate: "Estimate | None", form: str = ".3f") -> str:
        return "–" if estimate is None else f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"

    left_out = f" without {scores.left_out:,} that one of them was trained on" if scores.left_out else ""
    test_set = f"version {comparison.after} (test set {scores.test_digest[:12]})"
    out.print(f"on the {scores.rows:,} test rows of {test_set}{left_out}, 95 % intervals")
    rows = [
        (metric, cell(scores.before.get(metric)), cell(estimate), cell(scores.differences.get(metric), "+.3f"))
        for metric, estimate in scores.after.items()
    ]
    show_table(("metric", f"version {comparison.before}", f"version {comparison.after}", "difference, paired"), rows)
    for side, labels in ((comparison.before, scores.labels_only_before), (comparison.after, scores.labels_only_after)):
        if labels:
            out.print(f"only version {side} knows the labels {', '.join(labels)}", markup=False)
    out.print(f"\nfixed {len(scores.fixed)} / broke {len(scores.broken)}; both correct {scores.both_right}, both wrong {scores.both_wrong}")
    _show_answers("fixed", scores.fixed, limit)
    _show_answers("broke", scores.broken, limit)


def _show_answers(title: str, answers: "tuple[AnswerChange, ...]", limit: int | None) -> None:
    if not answers:
        return
    out.print(title)
    rows = [(answer.id, answer.expected, answer.before, answer.after, answer.text) for answer in answers[:limit]]
    show_table(("id", "expected", "before", "after", "text"), rows, indent="  ")
    if limit is not None and len(answers) > limit:
        out.print(f"  … and {len(answers) - limit} more; --all shows them")


def _show_data(data: "Data", limit: int | None) -> None:
    same = data.before.get("digest") == data.after.get("digest")
    out.print("\n[bold]data[/bold]" + (" is the same" if same else ""))
    for side in (data.before,) if same else (data.before, data.after):
        rows = f", {side['rows']:,} rows of {side['source']}, taken {side['taken_at']}" if "rows" in side else ""
        out.print(f"  snapshot {str(side['digest'])[:12]}{rows}", markup=False)
    if data.lost:
        out.print(f"  its rows cannot be compared: {data.lost}", markup=False)
    for change in ("added", "removed", "reworded", "relabelled"):
        if ids := getattr(data, change):
            out.print(f"  {len(ids)} {change}: {listed(ids, len(ids) if limit is None else limit)}", markup=False)


@app.command(rich_help_panel=INSPECT)
def lineage(
    name: Name,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="The version to trace.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="HASH_OR_ROW_ID", help="A snapshot (beginning of its digest) or a row to trace forward.")
    ] = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Trace a version to its origin, or data to versions.

    The origin is code, data, settings and run. With --data, shows the versions that used a snapshot or a row.

    Example: `retune lineage diagnosis 3` and `retune lineage diagnosis --data K35.80`
    """
    from flows.audit.lineage import find_exposures, trace_version
    from flows.audit.registered_model import open_model

    if (version is None) == (data is None):
        raise typer.BadParameter("give a VERSION to trace it back, or --data HASH_OR_ROW_ID to trace data forward")
    model = open_model(name, environment)
    if data is not None:
        exposures = find_exposures(model, data)
        print_json(exposures) if as_json else _show_exposures(exposures)
    elif version is not None:
        trail = trace_version(model, version)
        print_json(trail) if as_json else _show_lineage(trail)


def _show_lineage(trail: "Trail") -> None:
    dirty = f", with {trail.dirty} uncommitted files" if trail.dirty else ""
    data, base = trail.data, trail.base
    rows = f": {data['rows']:,} rows of {data['source']}, taken {data['taken_at']}" if "rows" in data else ""
    lines = {
        "candidate": trail.candidate,
        "git commit": f"{trail.git_commit or 'none'}{dirty}",
        "code": trail.code or "not known",
        "data": f"{data['digest']}{rows}",
        "base model": f"{base['source']} {base['digest']}",
        **({"pseudo": ", ".join(f"{rows:,} training rows labelled by {by}" for by, rows in trail.pseudo.items())} if trail.pseudo else {}),
        "weights": trail.weights or "not known",
        "verdict": trail.verdict or "not judged",
        "MLflow run": trail.run,
        "flow run": trail.flow_run or "none: run without Prefect",
        "hardware": ", ".join(f"{name} {value}" for name, value in trail.machine.items()) or "not known",
        "packages": ", ".join(f"{name} {version}" for name, version in trail.packages.items()) or "not known",
        "tuned": ", ".join(f"{name} {value}" for name, value in trail.tuned.items()) or "nothing",
    }
    out.print(f"[bold]{escape(trail.model)} version {trail.version}[/bold]")
    for name, value in lines.items():
        out.print(f"  {name:11} {value}", markup=False)
    out.print("  DVC")
    for path, digest in trail.hashes.items():
        out.print(f"    {digest:36} {path}", markup=False)
    for promotion in trail.promotions:
        forced = " by force" if promotion["forced"] else ""
        out.print(f"  {promotion['action']}{forced} {promotion['at']} by {promotion['who']}: {promotion['why']}", markup=False)
    if not trail.promotions:
        out.print("  was never champion")
    for reason in trail.lost:
        out.print(f"  not read: {reason}", markup=False)


def _show_exposures(exposures: "Sightings") -> None:
    if not exposures.seen:
        checked = exposures.looked_at - len(exposures.unknown)
        out.print(f"no version of {exposures.model} used {exposures.asked}; {checked} were checked", markup=False)
    else:
        rows = [
            (used.version, *(", ".join(cell) or None for cell in (used.as_what, used.aliases, used.promoted))) for used in exposures.seen
        ]
        show_table(("version", "used as", "alias", "champion from"), rows)
    if exposures.unknown:
        out.print(f"unknown for {', '.join(map(str, exposures.unknown))}: their runs have no list of rows, or were deleted")
