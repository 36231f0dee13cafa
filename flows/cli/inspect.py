"""The commands that show versions, champions, history and verdicts."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.cli.options import INSPECT, AsJson, ModelName, ParamsFile, app, out, print_json, print_table
from flows.cli.promotion import DefaultName, EnvironmentName
from flows.project.models import open_model

if TYPE_CHECKING:
    from flows.audit.history import LedgerCheck
    from flows.audit.registered_model import RegisteredModel

ROWS_SHOWN = 20  # per table of evidence; --json prints all


@app.command(rich_help_panel=INSPECT)
def status(
    params: ParamsFile = None,
    model: ModelName = None,
    every: Annotated[bool, typer.Option("--all", help="Show one line per model of the project, and the services of `retune up`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the registered versions and the champion.

    Shows metrics with 95 % intervals, verdicts, runs that wait for approval, and the test-set budget.

    Example: `retune status --all`
    """
    from flows.audit.model_status import read_status

    if every:
        _show_overview(as_json)
        return
    state = read_status(open_model(model, params))
    print_json(state) if as_json else show_status(state, state["standing"])


def _show_overview(as_json: bool) -> None:
    from flows.audit.fleet_status import fleet_status

    models, services = fleet_status()
    if as_json:
        print_json({"models": [asdict(model) for model in models], "services": services})
        return
    rows = [(*astuple(model)[:5], model.next_run or "no schedule", model.waiting or None) for model in models]
    show_table(("model", "champion", "since", "last verdict", "last scheduled run", "next run", "waits for approval"), rows)
    for name, service in services.items():
        out.print(f"{name}: {service}", markup=False)


def show_status(state: dict[str, Any], standing: dict[str, Any]) -> None:
    """Print the champion, one line per version, and what needs a decision."""
    if standing["fault"]:
        out.print(f"[bold]{escape(standing['fault'])}[/bold]")
    if not state["versions"]:
        out.print(f"{state['model']}: no version is registered yet; `retune run` registers one")
        return
    since = f" since {standing['since']}" if standing["since"] and standing["ledger"] == state["version"] else ""
    champion = f"the champion is version {state['version']}{since}" if state["version"] else "no version is champion"
    out.print(f"{state['model']}: {champion}")
    for metric, estimate in state["metrics"].items():
        out.print(f"  {metric:12} {estimate['value']:.3f} (95 % interval {estimate['low']:.3f}–{estimate['high']:.3f})")
    rows = [(str(v["version"]), ", ".join(v["aliases"]) or "–", v["verdict"] or "–", v["run_key"][:12]) for v in state["versions"]]
    print_table(("version", "alias", "verdict", "run key"), rows)
    for request in standing["waiting"]:
        waiting = f"version {request['version']} waits for approval until {request['until']}"
        out.print(f"{waiting}: `retune approve {request['run'][:12]}` or `reject`", markup=False)
    if standing["looks_used"] is not None and standing["looks_allowed"] is not None:
        used = f"{standing['looks_used']} of {standing['looks_allowed']} candidates of its budget used"
        out.print(f"test set {standing['test_digest'][:12]}: {used}")


@app.command(rich_help_panel=INSPECT)
def history(
    name: DefaultName = None,
    everything: Annotated[bool, typer.Option("--all", help="Include versions that never became champion, and rejections.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no entry of the ledger was changed; exit 1 if one was.")] = False,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Show every change of champion.

    Shows when, from which version to which, the verdict, who did it and why.

    Example: `retune history diagnosis --all` and `retune history diagnosis --verify`
    """
    from flows.audit.history import history as read
    from flows.audit.history import verify as check
    from flows.audit.registered_model import open_model, shown

    if verify:
        ledger = check(open_model(name, environment))
        print_json(ledger) if as_json else _show_verification(ledger)
        raise typer.Exit(1 if ledger.faults else 0)
    model = open_model(name, environment)
    events = read(model, everything)
    _warn_of_faults(model)
    if as_json:
        print_json([event.as_json() for event in events])
        return
    if not events:
        out.print(f"{model.name}: nothing was promoted yet{'' if everything else '; --all shows the registered versions'}")
        return
    rows = []
    for event in events:
        action = f"{event.action} by force" if event.forced else event.action
        reason = f"{event.why} (from {event.origin})" if event.origin else event.why
        evidence = event.evidence[:12] if event.evidence else None
        rows.append((shown(event.at), action, event.version, event.previous, event.verdict, evidence, event.who, reason))
    show_table(("when", "action", "version", "previous", "verdict", "evidence", "who", "why"), rows)


def _warn_of_faults(model: "RegisteredModel") -> None:
    if faults := model.ledger_faults():
        print(f"warning: the ledger was changed, first: {faults[0]}; `retune history {model.name} --verify` shows all", file=sys.stderr)


def _show_verification(ledger: "LedgerCheck") -> None:
    started = f", started {ledger.begun}" if ledger.begun else ""
    out.print(f"ledger {ledger.ledger}: {ledger.entries:,} entries in its chain{started}", markup=False)
    if ledger.found:
        out.print(f"  {ledger.found:,} rows are older than the chain and were not verified", markup=False)
    head = f"entry {ledger.kept}, {ledger.signature}" if ledger.kept else "none yet: `retune reconcile` writes it"
    out.print(f"  head in MLflow: {head}", markup=False)
    for fault in ledger.faults:
        out.print(f"fault: {fault}", markup=False)
    out.print(f"{len(ledger.faults)} faults: restore a copy of the ledger" if ledger.faults else "no entry was changed")


@app.command(rich_help_panel=INSPECT)
def champion(
    name: DefaultName = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="A time, e.g. 2026-11-01T12:00Z; UTC without a zone, 00:00 UTC for a date. Default: now."),
    ] = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Show the champion, now or at a given time.

    Shows since when it is champion, who promoted it and why.

    Example: `retune champion diagnosis --at 2026-11-01T12:00Z`
    """
    from flows.audit.history import champion as find
    from flows.audit.registered_model import open_model, shown

    model = open_model(name, environment)
    reign = find(model, at)
    _warn_of_faults(model)
    if as_json:
        print_json(reign.as_json())
        return
    entry, until = reign.entry, f"until {shown(reign.until)}" if reign.until else "until now"
    action = f"{entry.action} by {entry.who}{', by force' if entry.forced else ''}"
    out.print(f"{model.name} version {entry.version}, from {shown(entry.at)} {until}: {action}: {entry.why}", markup=False)
    if not reign.registered:
        repair = "" if reign.until else f"; run `retune rollback {model.name}`, or promote another version"
        out.print(f"version {entry.version} was deleted from the registry{repair}", markup=False)
    elif not reign.agrees:
        actual = f"version {reign.alias}" if reign.alias else "no version"
        out.print(f"the alias champion is at {actual}: `retune reconcile {model.name}` repairs it", markup=False)


@app.command(rich_help_panel=INSPECT)
def why(
    name: DefaultName = None,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="A version number, with or without NAME before it.")] = None,
    gate: Annotated[str | None, typer.Option(help="Show the evidence of this gate only.")] = None,
    evidence: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="An earlier verdict: the beginning of its digest in `retune history`.")
    ] = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Show the evidence behind a verdict.

    Shows each gate's outcome, value, interval and threshold, and what would change the outcome.

    Example: `retune why 3` and `retune why diagnosis 3 --gate champion`
    """
    from flows.audit.registered_model import open_model
    from flows.audit.verdict_evidence import why as read

    if version is None:  # the only argument is the version
        if name is None or not name.isdecimal():
            raise typer.BadParameter("give a version: `retune why VERSION` or `retune why NAME VERSION`")
        version, name = int(name), None
    verdict, digest = read(open_model(name, environment), version, gate, evidence)
    if as_json:
        print_json({"version": version, "evidence": digest, **verdict.model_dump(mode="json")})
        return
    out.print(f"[bold]{verdict.outcome}[/bold]  {escape(verdict.reason)}")
    models = f"champion {verdict.champion or 'none'}, best champion {verdict.anchor or 'none'}"
    budget = f", candidate {verdict.look} of its budget" if verdict.look else ""
    compared = f"compared with {models}, test set {verdict.test_digest[:12]}{budget}"
    out.print(f"{compared}; each gate decided at {verdict.level:.2%}; evidence {digest[:12]}", markup=False)
    for result in verdict.gates:
        show_gate(result)
    if verdict.off:
        out.print(f"\nswitched off: {', '.join(verdict.off)}")
    for line in verdict.tested:
        out.print(f"self-test: {line}", markup=False)


def show_gate(result: Any) -> None:
    """Print the result of a gate; works for every gate."""
    from flows.audit.verdict_evidence import as_tested, numbers

    out.print(f"\n[bold]{result.outcome}  {escape(result.gate)}[/bold] ({result.role}): {escape(result.reason)}")
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
    """Print a table with one line per row, however long: cut or wrapped lines cannot be searched."""
    lines = [tuple(columns), *(tuple(cell_text(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        out.print(indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), markup=False)


def cell_text(value: str | float | int | bool | datetime | None) -> str:
    """Return a value as text for a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
