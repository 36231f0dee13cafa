"""The commands that answer questions about what is and was in production."""

from typing import Any

from rich.table import Table

from flows.cli.terminal import AsJson, ParamsFile, app, interval, out, print_json
from flows.workspace import open_workspace


@app.command()
def status(params: ParamsFile = None, as_json: AsJson = False) -> None:
    """Show the registered versions: alias, metrics with 95 % intervals, verdict, run key.

    Example: `retune status --json`
    """
    from flows import effects

    state = effects.status(open_workspace(params))
    if as_json:
        print_json(state)
    else:
        show_status(state)


def show_status(state: dict[str, Any]) -> None:
    """Print the champion, and a line a version."""
    if not state["versions"]:
        out.print(f"{state['model']}: no version is registered yet; `retune run` makes one")
        return
    out.print(f"{state['model']}: the champion is version {state['version'] or 'none'}")
    for metric, estimate in state["metrics"].items():
        out.print(f"  {metric:12} {interval(estimate)}")
    table = Table("version", "alias", "verdict", "run key", box=None, pad_edge=False)
    for version in state["versions"]:
        table.add_row(str(version["version"]), ", ".join(version["aliases"]) or "–", version["verdict"] or "–", version["run_key"][:12])
    out.print(table)
