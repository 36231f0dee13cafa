"""The commands that answer questions about what is and was in production."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.options import AsJson, ModelName, ParamsFile, app, interval, out, print_json
from flows.cli.promotion import Name, Number, Place

if TYPE_CHECKING:
    from flows.audit.history import LedgerCheck
    from flows.audit.registered_model import RegisteredModel

ROWS_SHOWN = 20  # of a table of evidence; --json has all of them


@app.command()
def status(
    params: ParamsFile = None,
    model: ModelName = None,
    every: Annotated[bool, typer.Option("--all", help="A line for every model of the project, and what `retune up` has started.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the registered versions: alias, metrics with 95 % intervals, verdict, run key; what waits for a person; the test set's budget.

    Example: `retune status --all`
    """
    from flows.audit.model_status import read_status
    from flows.pipeline import actions
    from flows.project.models import open_model

    if every:
        show_overview(as_json)
        return
    workspace = open_model(model, params)
    state = actions.status(workspace)
    stands = asdict(read_status(workspace, state["version"], {version["version"] for version in state["versions"]}))
    if as_json:
        print_json({**state, "standing": stands})
    else:
        show_status(state, stands)


def show_overview(as_json: bool) -> None:
    """Print each model's champion, its age, the last verdict, how the last scheduled run ended and when the next one is due."""
    from flows.audit.fleet_status import fleet_status

    found = fleet_status()
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        (one.model, one.champion, one.age, one.verdict, one.last_run, one.next_run or "no schedule", one.waiting or None)
        for one in found.models
    ]
    show_table(("model", "champion", "since", "last verdict", "last scheduled run", "next run", "waits for a person"), rows)
    for name, says in found.services.items():
        out.print(f"{name}: {says}", markup=False)


def show_status(state: dict[str, Any], stands: dict[str, Any]) -> None:
    """Print the champion, a line a version, and what needs a person."""
    if stands["fault"]:
        out.print(f"[bold]{escape(stands['fault'])}[/bold]")
    if not state["versions"]:
        out.print(f"{state['model']}: no version is registered yet; `retune run` makes one")
        return
    since = f" since {stands['since']}" if stands["since"] and stands["ledger"] == state["version"] else ""
    who = f"the champion is version {state['version']}{since}" if state["version"] else "no version is champion"
    out.print(f"{state['model']}: {who}")
    for metric, estimate in state["metrics"].items():
        out.print(f"  {metric:12} {interval(estimate)}")
    table = Table("version", "alias", "verdict", "run key", box=None, pad_edge=False)
    for version in state["versions"]:
        table.add_row(str(version["version"]), ", ".join(version["aliases"]) or "–", version["verdict"] or "–", version["run_key"][:12])
    out.print(table)
    for request in stands["waiting"]:
        run = request["run"][:12]
        out.print(
            f"version {request['version']} waits for a person until {request['until']}: `retune approve {run}` or `reject`", markup=False
        )
    if stands["looks_used"] is not None and stands["looks_allowed"] is not None:
        out.print(f"test set {stands['test_digest'][:12]}: {stands['looks_used']} of {stands['looks_allowed']} looks used")


@app.command()
def history(
    name: Name,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the versions that never became champion, and who was turned down.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry of the ledger was changed since it was written; exit 1 if one was.")
    ] = False,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Show every change of champion: when, from which version to which, the verdict, who asked for it and why.

    Example: `retune history diagnosis --all` and `retune history diagnosis --verify`
    """
    from flows.audit.history import history as read
    from flows.audit.history import verify as check
    from flows.audit.registered_model import open_model, shown

    if verify:
        found = check(open_model(name, environment))
        print_json(found) if as_json else show_verification(found)
        raise typer.Exit(1 if found.faults else 0)
    model = open_model(name, environment)
    events = read(model, everything)
    warn_of_faults(model)
    if as_json:
        print_json([event.as_json() for event in events])
        return
    if not events:
        out.print(f"{name}: nothing was promoted yet{'' if everything else '; --all shows what was registered'}")
        return
    rows = []
    for event in events:
        action = f"{event.action} by force" if event.forced else event.action
        reason = f"{event.why} (from {event.origin})" if event.origin else event.why
        evidence = event.evidence[:12] if event.evidence else None
        rows.append((shown(event.at), action, event.version, event.previous, event.verdict, evidence, event.who, reason))
    show_table(("when", "what", "version", "before", "verdict", "evidence", "who", "why"), rows)


def warn_of_faults(model: "RegisteredModel") -> None:
    """Say on standard error that what is shown is from a ledger that was changed."""
    if faults := model.ledger_faults():
        print(f"warning: the ledger was changed, first: {faults[0]}; `retune history {model.name} --verify` shows all", file=sys.stderr)


def show_verification(found: "LedgerCheck") -> None:
    """Print what the chain covers, what MLflow keeps of it, and every fault."""
    begun = f", begun {found.begun}" if found.begun else ""
    out.print(f"ledger {found.ledger}: {found.entries:,} entries in its chain{begun}", markup=False)
    if found.found:
        out.print(f"  {found.found:,} rows are older than the chain, and only trusted as they were found", markup=False)
    kept = f"entry {found.kept} as its head, {found.signature}" if found.kept else "no head yet: `retune reconcile` writes it"
    out.print(f"  MLflow keeps {kept}", markup=False)
    for fault in found.faults:
        out.print(f"fault: {fault}", markup=False)
    out.print(
        "nothing was changed since it was written" if not found.faults else f"{len(found.faults)} faults: restore a copy of the ledger"
    )


@app.command()
def champion(
    name: Name,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="A moment, such as 2026-11-01T12:00Z; UTC where it names no zone, 00:00 UTC of a bare date. Now when left out.",
        ),
    ] = None,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Say which version is in production, or was at a moment, since when, who put it there and why.

    Example: `retune champion diagnosis --at 2026-11-01T12:00Z`
    """
    from flows.audit.history import champion as find
    from flows.audit.registered_model import open_model, shown

    model = open_model(name, environment)
    reign = find(model, at)
    warn_of_faults(model)
    if as_json:
        print_json(reign.as_json())
        return
    entry, until = reign.entry, f"until {shown(reign.until)}" if reign.until else "to this day"
    forced = ", by force" if entry.forced else ""
    out.print(
        f"{name} version {entry.version}, from {shown(entry.at)} {until}: {entry.action} by {entry.who}{forced}: {entry.why}", markup=False
    )
    if not reign.registered:
        mended = "" if reign.until else f"; `retune rollback {name}`, or promote another one"
        out.print(f"version {entry.version} is not in the registry any more: it was deleted{mended}", markup=False)
    elif not reign.agrees:
        where = f"version {reign.alias}" if reign.alias else "no version"
        out.print(f"the alias champion is at {where}: `retune reconcile {name}` mends it", markup=False)


@app.command()
def why(
    name: Name,
    version: Number,
    gate: Annotated[str | None, typer.Option(help="Only this gate's evidence.")] = None,
    evidence: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="An earlier verdict, by the beginning of its digest in the history.")
    ] = None,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Show the evidence behind a verdict: each gate's outcome, number, interval and threshold, and what would change it.

    Example: `retune why diagnosis 3 --gate champion`
    """
    from flows.audit.registered_model import open_model
    from flows.audit.verdict_evidence import why as read

    found = read(open_model(name, environment), version, gate, evidence)
    if as_json:
        print_json(found.as_json())
        return
    verdict = found.verdict
    out.print(f"[bold]{verdict.outcome}[/bold]  {escape(verdict.reason)}")
    against = [f"champion {verdict.champion or 'none'}", f"best so far {verdict.anchor or 'none'}", f"test set {verdict.test_digest[:12]}"]
    look = f", look {verdict.look} at it" if verdict.look else ""
    out.print(f"against {', '.join(against)}{look}; each gate decided at {verdict.level:.2%}; evidence {found.digest[:12]}", markup=False)
    for result in verdict.gates:
        show_gate(result)
    if verdict.off:
        out.print(f"\nswitched off: {', '.join(verdict.off)}")
    for line in verdict.tested:
        out.print(f"self-test: {line}", markup=False)


def show_gate(result: Any) -> None:
    """Print what a gate found: generic, so that a new gate needs nothing here."""
    from flows.audit.verdict_evidence import as_tested, numbers

    out.print(f"\n[bold]{result.shown}  {escape(result.gate)}[/bold] ({result.role}): {escape(result.reason)}")
    if measured := numbers(result):
        out.print(f"  {measured}", markup=False)
    if result.change:
        out.print(f"  would change it: {result.change}", markup=False)
    for hypothesis in result.hypotheses:
        state = "rejects" if hypothesis.rejected else "does not reject"
        detail = numbers(hypothesis)
        out.print(f"  {state}: {as_tested(hypothesis)}{'; ' + detail if detail else ''}", markup=False)
    for note in result.notes:
        out.print(f"  {note}", markup=False)
    for table in result.tables:
        out.print(f"  {table.title}", markup=False)
        show_table(table.columns, table.rows[:ROWS_SHOWN], indent="    ")
        if len(table.rows) > ROWS_SHOWN:
            out.print(f"    … and {len(table.rows) - ROWS_SHOWN} more rows; --json has them")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> None:
    """Print rows below their columns, a line each however long: what is cut or folded to a terminal's width cannot be searched."""
    lines = [tuple(columns), *(tuple(cell_text(cell) for cell in row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        out.print(indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), markup=False)


def cell_text(value: str | float | int | bool | datetime | None) -> str:
    """Return a cell of a table as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
