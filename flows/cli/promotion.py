"""The commands that change who is in production."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.options import AsJson, app, out, print_json

if TYPE_CHECKING:
    from components.mlflow_store.registry import Promotion

Name = Annotated[str, typer.Argument(metavar="NAME", help="A registered model's name.")]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="A version's number.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The beginning of the waiting run's id in MLflow; `retune status` shows it.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; the ledger keeps it.")]
Place = Annotated[str, typer.Option("--environment", metavar="NAME", help="An environment of RETUNE_ENVIRONMENTS, or this project's.")]


@app.command()
def promote(
    name: Name,
    version: Number,
    force: Annotated[bool, typer.Option("--force", help="Promote whatever its verdict is; needs --why.")] = False,
    why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="The reason; the verdict's when left out.")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="ENVIRONMENT", help="Copy the version from there first.")] = None,
    target: Annotated[str, typer.Option("--to", metavar="ENVIRONMENT", help="Promote it there.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Make a version that passed the champion, after it has answered ten rows in a fresh process.

    Fails when the champion is another one than the verdict was about: then judge again.

    Example: `retune promote diagnosis 3`
    """
    from flows.production import promotion

    there, who = promotion.environment(target), promotion.person()
    if source is None:
        done = promotion.promote(there, name, version, who=who, why=why, force=force)
    else:
        done = promotion.promote_from(promotion.environment(source), there, name, version, who=who, why=why, force=force)
    show(done, as_json)


@app.command()
def rollback(
    name: Name,
    why: Why,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", help="An earlier champion; the one before when left out.")] = None,
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion the champion again, after it has answered ten rows in a fresh process.

    Example: `retune rollback diagnosis --why "wrong on the new codes"`
    """
    from flows.production import promotion

    show(promotion.rollback(promotion.environment(environment), name, to, who=promotion.person(), why=why), as_json)


@app.command()
def approve(run: Run, why: Why, environment: Place = "local", as_json: AsJson = False) -> None:
    """Promote the version of a run that waits for a person.

    Fails when its time has passed, when the evidence is not the one that was asked about, or when the champion has changed.

    Example: `retune approve 3f2a --why "the errors are harmless"`
    """
    from flows.production import promotion

    show(promotion.approve(promotion.environment(environment), run, who=promotion.person(), why=why), as_json)


@app.command()
def reject(run: Run, why: Why, environment: Place = "local", as_json: AsJson = False) -> None:
    """Say no to a run that waits for a person: its version is no challenger any more.

    Example: `retune reject 3f2a --why "too slow"`
    """
    from flows.production import promotion

    request = promotion.reject(promotion.environment(environment), run, who=promotion.person(), why=why)
    if as_json:
        print_json(request)
        return
    out.print(f"{request.model}: version {request.version} is rejected; the champion stays", markup=False)


@app.command()
def reconcile(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A registered model; all of them when left out.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take a ledger that was changed, lost or newly signed for right as it is; needs --why.")
    ] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason for --accept; the ledger keeps it.")] = "",
    environment: Place = "local",
    as_json: AsJson = False,
) -> None:
    """Compare the aliases in MLflow with the ledger, and mend them from it.

    Refuses a ledger that was changed since it was written. `--accept` begins a new chain over it, for all models of the ledger.

    Example: `retune reconcile` and `retune reconcile --accept --why "restored from Monday's copy"`
    """
    from flows.production import promotion

    place = promotion.environment(environment)
    if accept:
        promotion.accept(place, who=promotion.person(), why=why)
    elif why:
        raise typer.BadParameter("--why is the reason for --accept: give both, or none")
    mended = promotion.reconcile(place, name)
    if as_json:
        print_json(mended)
        return
    for model, sentences in mended.items():
        out.print(f"[bold]{escape(model)}[/bold]: {escape('; '.join(sentences)) or 'the aliases and the ledger agree'}")


def show(done: "Promotion", as_json: bool) -> None:
    """Print who is champion now, and who was."""
    entry = done.entry
    if as_json:
        print_json({"model": entry.model, "champion": entry.version, "previous": entry.previous, "changed": done.changed})
        return
    state = "now" if done.changed else "already"
    out.print(f"{entry.model}: version {entry.version} is {state} the champion; before: {entry.previous or 'none'}", markup=False)
