"""The commands that change who is in production."""

from typing import Annotated

import typer

from flows.cli.terminal import ParamsFile, app, out
from flows.workspace import open_workspace


@app.command()
def promote(
    version: Annotated[int | None, typer.Argument(help="The version; the newest when left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote although its verdict is not PASS.")] = False,
    params: ParamsFile = None,
) -> None:
    """Make a registered version the champion, after it has answered ten rows in a fresh process.

    Example: `retune promote 3`
    """
    from flows import effects

    promotion = effects.promote_version(open_workspace(params), version, force=force)
    chosen, before = promotion.version, promotion.previous
    out.print(
        f"{chosen.name}: version {chosen.number} is {'now' if promotion.changed else 'already'} the champion; before: {before or 'none'}"
    )
