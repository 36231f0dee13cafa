"""The commands for maintenance: repair aliases, verify, rebuild and prune versions, move to shared services."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.options import MAINTAIN, AsJson, app, out, print_json, show
from flows.cli.promotion import EnvironmentName, Name, Number
from flows.project.workspace import find_project

if TYPE_CHECKING:
    from flows.audit.prune import PrunePlan
    from flows.audit.verify import RegistryCheck


@app.command(rich_help_panel=MAINTAIN)
def reconcile(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A registered model. Default: all of them.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept the present content of a ledger that was changed, lost or newly signed; needs --why.")
    ] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason for --accept; recorded in the ledger.")] = "",
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Repair the aliases in MLflow from the ledger.

    Fails if the ledger was changed since it was written. `--accept` keeps its present content and starts a new hash chain, for all
    models of the ledger.

    Example: `retune reconcile` and `retune reconcile --accept --why "restored from Monday's copy"`
    """
    from flows.production import promotion

    registry = promotion.environment(environment)
    if accept:
        promotion.accept(registry, who=promotion.person(), why=why)
    elif why:
        raise typer.BadParameter("--why is the reason for --accept: give both, or neither")
    repairs = promotion.reconcile(registry, name)
    if as_json:
        print_json(repairs)
        return
    for model, sentences in repairs.items():
        out.print(f"[bold]{escape(model)}[/bold]: {escape('; '.join(sentences)) or 'the aliases and the ledger agree'}")


@app.command(rich_help_panel=MAINTAIN)
def verify(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A registered model. Default: all models of the project.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the files of all current and past champions.

    Compares the hashes of their files in MLflow, DVC and the workspaces; changes nothing. Exits 1 if a file is missing, damaged or changed.

    Example: `retune verify diagnosis`
    """
    from flows.audit.verify import verify as check

    checks = check(name)
    print_json([model.model_dump(mode="json") for model in checks]) if as_json else _show_verified(checks)
    raise typer.Exit(1 if any(model.faults for model in checks) else 0)


def _show_verified(checks: "Sequence[RegistryCheck]") -> None:
    if not checks:
        out.print("no model is registered yet; `retune run` registers one")
    for model in checks:
        versions = f"version{'s' * (len(model.versions) != 1)} {', '.join(map(str, model.versions)) or 'none was champion'}"
        state = f"{len(model.faults)} fault{'s' * (len(model.faults) != 1)}" if model.faults else "all match"
        out.print(f"[bold]{escape(model.model)}: {state}[/bold]; {versions}, {model.objects:,} DVC objects")
        for fault in model.faults:
            version = f" {model.model} {fault.version}:" if fault.version else ""
            out.print(f"  {fault.store}:{version} {fault.message}", markup=False)
        for note in model.notes:
            out.print(f"  note: {note}", markup=False)


@app.command(rich_help_panel=MAINTAIN)
def rebuild(
    name: Name,
    version: Number,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Rebuild in this folder and keep it. Default: a temporary folder.")
    ] = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Rebuild a version and compare it bit by bit.

    Uses the registry entry only, in a separate folder. Exits 0 if the result is bit-equal, 1 if it differs or commit or data are missing.

    Example: `retune rebuild diagnosis 3`
    """
    from flows.audit.rebuild import rebuild as run
    from flows.audit.registered_model import open_model

    rebuilt = run(open_model(name, environment), version, keep)
    if as_json:
        print_json(rebuilt)
        raise typer.Exit(0 if rebuilt.bit_equal else 1)
    for note in rebuilt.notes:
        out.print(f"note: {note}", markup=False)
    for stage, result in rebuilt.stages.items():
        out.print(f"  {stage:11} {result}")
    for difference in rebuilt.differences:
        out.print(f"differs: {difference}", markup=False)
    state = "bit-equal" if rebuilt.bit_equal else f"not bit-equal, {len(rebuilt.differences)} differences"
    out.print(f"[bold]{escape(name)} version {version}: {state}[/bold], commit {rebuilt.commit[:12]}, in {rebuilt.seconds:.0f} s")
    if rebuilt.folder:
        out.print(f"kept in {rebuilt.folder}; `git worktree remove --force {quote(rebuilt.folder)}` removes it", markup=False)
    raise typer.Exit(0 if rebuilt.bit_equal else 1)


@app.command(rich_help_panel=MAINTAIN)
def prune(
    keep: Annotated[int, typer.Option(metavar="N", help="Keep at least this number of the newest versions of each model.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A registered model. Default: all models of the project.")] = None,
    idle_days: Annotated[float, typer.Option(min=0, help="Days after which an interrupted search or training counts as abandoned.")] = 7,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only show what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete unused versions; a dry run unless --yes.

    Deletes versions that were never champion, with their runs, cached data, studies and cached predictions. Keeps everything that
    champion, previous, challenger, a waiting request or a ledger entry refers to, here or in an environment of RETUNE_ENVIRONMENTS.
    With NAME, keeps the versions and the unfinished work of other models.

    Example: `retune prune diagnosis --keep 10`
    """
    from flows.audit.prune import prune as run

    plan = run(name, keep, idle_days, really=yes)
    print_json({"deleted": yes, **plan.as_json()}) if as_json else _show_plan(plan, yes)


def _show_plan(plan: "PrunePlan", deleted: bool) -> None:
    for model, reasons in plan.kept.items():
        kept = ", ".join(f"{number} ({why})" for number, why in reasons.items()) or "none"
        out.print(f"{model}: kept: {kept}", markup=False)
    for item in plan.doomed:
        if item.version is not None:
            out.print(f"  version {item.name}, {item.bytes / 2**20:.1f} MiB", markup=False)
    for category, (count, size) in plan.totals().items():
        out.print(f"{'deleted' if deleted else 'would delete'} {count} × {category}, {size / 2**20:.1f} MiB")
    for reason in plan.left:
        out.print(f"skipped: {reason}", markup=False)
    if not plan.doomed:
        out.print("nothing to delete")
    elif not deleted:
        out.print("nothing was deleted; pass --yes to delete")


@app.command(rich_help_panel=MAINTAIN)
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be copied.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy var/ into the shared services of the settings.

    Copies runs, versions, artifacts, ledger, studies and DVC's cache; changes nothing in var/. The services must be empty.
    RETUNE_MLFLOW_DATABASE is the URL of the database of MLflow's server.

    Example: `retune migrate --dry-run`
    """
    from flows.migrate.migrate import migrate as copy_all

    done = copy_all(find_project(Path.cwd().resolve()), dry_run)
    text = (
        f"{'copied and verified' if done.done else 'would copy'}: {done.versions:,} versions and {done.runs:,} runs ({done.rows:,} rows), "
        f"{done.artifacts:,} artifacts ({done.bytes:,} bytes), {done.ledger:,} rows of the ledger, {done.studies:,} studies, "
        f"{done.objects:,} DVC objects"
    )
    show(done, text, as_json)
