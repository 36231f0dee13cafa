"""The command that says what can be made: tasks, what each expects of the data, and its settings."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.terminal import AsJson, app, out, print_json


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="A task, to see its settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks; of one, its columns, metrics and baselines, and every setting of `task_options`.

    Example: `retune tasks token_classification`
    """
    from components import tasks as known

    found = [described(one) for one in ([name] if name else known.available())]
    if as_json:
        print_json(found)
        return
    table = Table(*("task", "columns", "asked with", "decided on", "baselines"), box=None, pad_edge=False)
    for one in found:
        table.add_row(one["task"], *(", ".join(one[key]) for key in ("columns", "inputs", "metrics", "baselines")))
    out.print(table)
    if name is None:
        out.print("\nwithout options; `retune tasks NAME` shows what options make of it")
        return
    settings = Table("task_options", "default", "meaning", box=None, pad_edge=False)
    for field in found[0]["options"]:
        settings.add_row(field["name"], field["default"], escape(field["meaning"] + field["choices"]))
    out.print()
    out.print(settings)


def described(name: str) -> dict[str, Any]:
    """Return what a task is without any option set, and its options."""
    from components import tasks as known
    from components.yardstick import decidable

    task = known.load(name)
    return {
        "task": name,
        "columns": task.columns,
        "inputs": task.inputs,
        "metrics": tuple(decidable(task)),
        "baselines": task.baselines,
        "options": list(_options(task.Options)),
    }


def _options(section: Any) -> Iterator[dict[str, str]]:
    for field, info in section.model_fields.items():
        choices = [str(choice) for choice in get_args(info.annotation) if isinstance(choice, str)]
        default = "null" if info.default is None else str(info.get_default(call_default_factory=True))
        known = f" [{' | '.join(choices)}]" if choices and not all(choice in (info.description or "") for choice in choices) else ""
        yield {"name": field, "default": default, "meaning": str(info.description), "choices": known}
