"""The commands that change the champion."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import PROMOTE, AsJson, app, show

if TYPE_CHECKING:
    from components.mlflow_store.registry import Promotion

Name = Annotated[str, typer.Argument(metavar="NAME", help="A registered model's name.")]
DefaultName = Annotated[str | None, typer.Argument(metavar="NAME", help="A registered model's name. Default: that of params.yaml.")]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="A version number.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The beginning of the waiting run's id in MLflow; `retune status` shows it.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; recorded in the ledger.")]
EnvironmentName = Annotated[
    str, typer.Option("--environment", metavar="NAME", help="An environment of RETUNE_ENVIRONMENTS; `local` is this project's.")
]


@app.command(rich_help_panel=PROMOTE)
def promote(
    name: Name,
    version: Number,
    force: Annotated[bool, typer.Option("--force", help="Promote whatever the verdict is; needs --why.")] = False,
    why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="The reason. Default: that of the verdict.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="ENVIRONMENT", help="Copy the version from this environment first.")
    ] = None,
    target: Annotated[str, typer.Option("--to", metavar="ENVIRONMENT", help="The environment to promote in.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Make a version that passed its gates the champion.

    The version must first answer ten rows in a new process. Fails if the champion is not the one that the verdict compared with: judge
    again then.

    Example: `retune promote diagnosis 3`
    """
    from flows.production import promotion

    environment, who = promotion.environment(target), promotion.person()
    if source is None:
        done = promotion.promote(environment, name, version, who=who, why=why, force=force)
    else:
        done = promotion.promote_from(promotion.environment(source), environment, name, version, who=who, why=why, force=force)
    _show_promotion(done, as_json)


@app.command(rich_help_panel=PROMOTE)
def rollback(
    name: Name,
    why: Why,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", help="An earlier champion. Default: the previous champion.")] = None,
    environment: EnvironmentName = "local",
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion the champion again.

    The version must first answer ten rows in a new process.

    Example: `retune rollback diagnosis --why "wrong on the new codes"`
    """
    from flows.production import promotion

    _show_promotion(promotion.rollback(promotion.environment(environment), name, to, who=promotion.person(), why=why), as_json)


@app.command(rich_help_panel=PROMOTE)
def approve(run: Run, why: Why, environment: EnvironmentName = "local", as_json: AsJson = False) -> None:
    """Promote the version of a run that waits for approval.

    Fails if the request has expired, the evidence is not that of the request, or the champion has changed.

    Example: `retune approve 3f2a --why "the errors are harmless"`
    """
    from flows.production import promotion

    _show_promotion(promotion.approve(promotion.environment(environment), run, who=promotion.person(), why=why), as_json)


@app.command(rich_help_panel=PROMOTE)
def reject(run: Run, why: Why, environment: EnvironmentName = "local", as_json: AsJson = False) -> None:
    """Reject the version of a run that waits for approval.

    Example: `retune reject 3f2a --why "too slow"`
    """
    from flows.production import promotion

    request = promotion.reject(promotion.environment(environment), run, who=promotion.person(), why=why)
    show(request, f"{request.model}: version {request.version} is rejected; the champion is unchanged", as_json)


def _show_promotion(done: "Promotion", as_json: bool) -> None:
    entry, state = done.entry, "now" if done.changed else "already"
    record = {"model": entry.model, "champion": entry.version, "previous": entry.previous, "changed": done.changed}
    show(record, f"{entry.model}: version {entry.version} is {state} the champion; previous: {entry.previous or 'none'}", as_json)
