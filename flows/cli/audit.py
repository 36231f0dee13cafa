"""The commands of auditors and operators: what differs, where it came from, whether it can be made again, what can go."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.inspect import show_table
from flows.cli.options import AsJson, app, out, print_json
from flows.cli.promotion import Name, Number, Place

if TYPE_CHECKING:
    from flows.audit.diff import Answer, Data, Diff, Scores
    from flows.audit.lineage import Sightings, Trail
    from flows.audit.prune import PrunePlan
    from flows.audit.verify import RegistryCheck

SHOWN = 10  # of each list of rows


@app.command()
def diff(
    name: Name,
    before: Annotated[int, typer.Argument(metavar="V1", help="The older version.")],
    after: Annotated[int, typer.Argument(metavar="V2", help="The newer version, on whose test set both are measured.")],
    everything: Annotated[bool, typer.Option("--all", help="Every row that was fixed or broken, and every row that differs.")] = False,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Compare two versions: metrics with intervals, rows fixed and broken with their texts, settings, data.

    Example: `retune diff diagnosis 2 3`
    """
    from flows.audit.diff import diff as compare
    from flows.audit.registered_model import open_model

    found = compare(open_model(name, environment), before, after)
    if as_json:
        print_json(found)
    else:
        show_diff(found, None if everything else SHOWN)


def show_diff(found: "Diff", limit: int | None) -> None:
    """Print a comparison, `limit` rows of each list."""
    if found.scores:
        show_scores(found, found.scores, limit)
    else:
        out.print(f"the answers cannot be compared: {found.lost}", markup=False)
    out.print(f"\n[bold]settings[/bold]{'' if found.params else ' are the same'}")
    for name, (was, now) in found.params.items():
        out.print(f"  {name}: {was} → {now}", markup=False)
    show_data(found.data, limit)


def show_scores(found: "Diff", scores: "Scores", limit: int | None) -> None:
    """Print metrics with intervals, and the rows on which one of the two is right."""
    from components.artifacts.metrics import Estimate

    def cell(estimate: Estimate | None) -> str:
        return "–" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"

    def signed(estimate: Estimate | None) -> str:
        return "–" if estimate is None else f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"

    left_out = f" without {scores.left_out:,} that one of them has learnt" if scores.left_out else ""
    out.print(f"on the {scores.rows:,} test rows of version {found.after} (test set {scores.test_digest[:12]}){left_out}, 95 % intervals")
    rows = [
        (metric, cell(scores.before.get(metric)), cell(estimate), signed(scores.differences.get(metric)))
        for metric, estimate in scores.after.items()
    ]
    show_table(("metric", f"version {found.before}", f"version {found.after}", "difference, paired"), rows)
    for side, labels in ((found.before, scores.labels_only_before), (found.after, scores.labels_only_after)):
        if labels:
            out.print(f"only version {side} knows the labels {', '.join(labels)}", markup=False)
    out.print(f"\nfixed {len(scores.fixed)} / broke {len(scores.broken)}; both right {scores.both_right}, both wrong {scores.both_wrong}")
    show_answers("fixed", scores.fixed, limit)
    show_answers("broke", scores.broken, limit)


def show_answers(title: str, answers: "tuple[Answer, ...]", limit: int | None) -> None:
    """Print rows with what both versions said."""
    if not answers:
        return
    out.print(title)
    rows = [(answer.id, answer.expected, answer.before, answer.after, answer.text) for answer in answers[:limit]]
    show_table(("id", "expected", "was", "is", "text"), rows, indent="  ")
    if limit is not None and len(answers) > limit:
        out.print(f"  … and {len(answers) - limit} more; --all shows them")


def show_data(data: "Data", limit: int | None) -> None:
    """Print both snapshots and the rows that differ."""
    same = data.before.get("digest") == data.after.get("digest")
    out.print("\n[bold]data[/bold]" + (" is the same" if same else ""))
    for side in (data.before,) if same else (data.before, data.after):
        rows = f", {side['rows']:,} rows of {side['source']}, taken {side['taken_at']}" if "rows" in side else ""
        out.print(f"  snapshot {str(side['digest'])[:12]}{rows}", markup=False)
    if data.lost:
        out.print(f"  its rows cannot be compared: {data.lost}", markup=False)
    for what in ("added", "removed", "reworded", "relabelled"):
        if ids := getattr(data, what):
            more = f" and {len(ids) - limit} more" if limit is not None and len(ids) > limit else ""
            out.print(f"  {len(ids)} {what}: {', '.join(ids[:limit])}{more}", markup=False)


@app.command()
def lineage(
    name: Name,
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="The version whose origin is asked for.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="HASH_OR_ROW_ID", help="Which versions saw this snapshot (beginning of its digest) or row?"),
    ] = None,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Trace a version back to code, data, settings and run; or, with --data, a snapshot or a row forward to the versions that saw it.

    Example: `retune lineage diagnosis 3` and `retune lineage diagnosis --data K35.80`
    """
    from flows.audit.lineage import find_exposures, trace_version
    from flows.audit.registered_model import open_model

    if (version is None) == (data is None):
        raise typer.BadParameter("give a VERSION to trace it back, or --data HASH_OR_ROW_ID to trace that forward")
    model = open_model(name, environment)
    if data is not None:
        seen = find_exposures(model, data)
        print_json(seen) if as_json else show_exposures(seen)
    elif version is not None:
        found = trace_version(model, version)
        print_json(found) if as_json else show_lineage(found)


def show_lineage(found: "Trail") -> None:
    """Print where a version came from."""
    dirty = f", with {found.dirty} uncommitted files" if found.dirty else ""
    data, base = found.data, found.base
    rows = f": {data['rows']:,} rows of {data['source']}, taken {data['taken_at']}" if "rows" in data else ""
    lines = {
        "candidate": found.candidate,
        "git commit": f"{found.git_commit or 'none'}{dirty}",
        "code": found.code or "not known",
        "data": f"{data['digest']}{rows}",
        "base model": f"{base['source']} {base['digest']}",
        **({"pseudo": ", ".join(f"{rows:,} training rows labelled by {by}" for by, rows in found.pseudo.items())} if found.pseudo else {}),
        "weights": found.weights or "not known",
        "verdict": found.verdict or "nobody judged it",
        "MLflow run": found.run,
        "flow run": found.flow_run or "none: run without Prefect",
        "machine": ", ".join(f"{name} {value}" for name, value in found.machine.items()) or "not known",
        "packages": ", ".join(f"{name} {version}" for name, version in found.packages.items()) or "not known",
        "tuned": ", ".join(f"{name} {value}" for name, value in found.tuned.items()) or "nothing",
    }
    out.print(f"[bold]{escape(found.model)} version {found.version}[/bold]")
    for name, value in lines.items():
        out.print(f"  {name:11} {value}", markup=False)
    out.print("  DVC")
    for path, digest in found.hashes.items():
        out.print(f"    {digest:36} {path}", markup=False)
    for promotion in found.promotions:
        forced = " by force" if promotion["forced"] else ""
        out.print(f"  {promotion['action']}{forced} {promotion['at']} by {promotion['who']}: {promotion['why']}", markup=False)
    if not found.promotions:
        out.print("  never was champion")
    for reason in found.lost:
        out.print(f"  not read: {reason}", markup=False)


def show_exposures(found: "Sightings") -> None:
    """Print which versions saw a snapshot or a row."""
    if not found.seen:
        out.print(f"no version of {found.model} saw {found.asked}; {found.looked_at - len(found.unknown)} were looked at", markup=False)
    else:
        rows = [(seen.version, ", ".join(seen.as_what), ", ".join(seen.aliases), ", ".join(seen.promoted)) for seen in found.seen]
        show_table(("version", "saw it as", "alias", "champion from"), [[cell or None for cell in row] for row in rows])
    if found.unknown:
        out.print(f"not known of {', '.join(map(str, found.unknown))}: their runs keep no list of rows, or were deleted")


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A registered model; all of the project when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every champion, now and before, leads to files whose hashes match: in MLflow, in DVC, in the workspaces.

    Changes nothing. Exits 0 when all match, 1 when something is missing, damaged or changed.

    Example: `retune verify diagnosis`
    """
    from flows.audit.verify import verify as look

    found = look(name)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    else:
        show_verified(found)
    raise typer.Exit(1 if any(one.faults for one in found) else 0)


def show_verified(found: "Sequence[RegistryCheck]") -> None:
    """Print a line a model, and one for each fault."""
    if not found:
        out.print("no model is registered yet; `retune run` registers one")
    for one in found:
        versions = f"version{'s' * (len(one.versions) != 1)} {', '.join(map(str, one.versions)) or 'none was champion'}"
        state = f"{len(one.faults)} fault{'s' * (len(one.faults) != 1)}" if one.faults else "all match"
        out.print(f"[bold]{escape(one.model)}: {state}[/bold]; {versions}, {one.objects:,} objects of DVC")
        for fault in one.faults:
            of = f" {one.model} {fault.version}:" if fault.version else ""
            out.print(f"  {fault.place}:{of} {fault.says}", markup=False)
        for note in one.notes:
            out.print(f"  note: {note}", markup=False)


@app.command()
def rebuild(
    name: Name,
    version: Number,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Make it there and leave it; else a folder that is removed.")] = None,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Make a version again from its registry entry alone, in a folder apart, and compare it with the first making bit by bit.

    Exits 0 when it is bit-equal, 1 when it differs or commit or data are gone.

    Example: `retune rebuild diagnosis 3`
    """
    from flows.audit.rebuild import rebuild as make
    from flows.audit.registered_model import open_model

    found = make(open_model(name, environment), version, keep)
    if as_json:
        print_json(found)
        raise typer.Exit(0 if found.bit_equal else 1)
    for note in found.notes:
        out.print(f"note: {note}", markup=False)
    for stage, said in found.stages.items():
        out.print(f"  {stage:11} {said}")
    for difference in found.differences:
        out.print(f"differs: {difference}", markup=False)
    state = "bit-equal" if found.bit_equal else f"not bit-equal, {len(found.differences)} differences"
    out.print(f"[bold]{escape(name)} version {version}: {state}[/bold], commit {found.commit[:12]}, in {found.seconds:.0f} s")
    if found.folder:
        out.print(f"it lies in {found.folder}; `git worktree remove --force {quote(found.folder)}` removes it", markup=False)
    raise typer.Exit(0 if found.bit_equal else 1)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(metavar="N", help="How many of the newest versions of each model stay in any case.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A registered model; all of the project when left out.")] = None,
    idle_days: Annotated[float, typer.Option(min=0, help="Days after which a search or training that was cut short is abandoned.")] = 7,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it only what would be deleted is shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete versions that never were champion, with their runs, cached data, searches and answers; a dry run unless --yes.

    What champion, previous, challenger, a waiting request or any entry of the ledger can reach stays, here or in an environment of
    RETUNE_ENVIRONMENTS. With NAME, so do other models' versions and what was left unfinished in their workspaces.

    Example: `retune prune diagnosis --keep 10`
    """
    from flows.audit.prune import prune as carry_out

    found = carry_out(name, keep, idle_days, really=yes)
    if as_json:
        print_json({"deleted": yes, **found.as_json()})
    else:
        show_plan(found, yes)


def show_plan(found: "PrunePlan", deleted: bool) -> None:
    """Print what goes and what stays."""
    for model, reasons in found.kept.items():
        stays = ", ".join(f"{number} ({why})" for number, why in reasons.items()) or "none"
        out.print(f"{model}: stays: {stays}", markup=False)
    for thing in found.doomed:
        if thing.version is not None:
            out.print(f"  version {thing.name}, {mebibytes(thing.bytes)}", markup=False)
    for kind, (count, size) in found.totals().items():
        out.print(f"{'deleted' if deleted else 'would delete'} {count} × {kind}, {mebibytes(size)}")
    for reason in found.left:
        out.print(f"left alone: {reason}", markup=False)
    if not found.doomed:
        out.print("nothing to delete")
    elif not deleted:
        out.print("nothing was deleted: --yes does it")


def mebibytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 2**20:.1f} MiB"
