"""The command that says what can be made: tasks, what each expects of the data, and its settings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.table import Table

from components.core.documents import parse_yaml
from components.core.errors import BadParams
from flows.cli.options import AsJson, app, out, print_json

_FACTS = {
    "columns": "columns",
    "asked with": "inputs",
    "validation": "validation",
    "baselines": "baselines",
    "slices": "slices",
    "refuses of train": "refuses",
}
_MACRO = "mean over the labels of their F1"


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="A task, to see its settings.")] = None,
    options: Annotated[str, typer.Option("--options", metavar="YAML", help="Settings of NAME, to see what they make of it.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """List the tasks; of one, its columns, metrics, baselines and slices, and every setting of `task_options`.

    Example: `retune tasks text_classification --options '{kind: multi}'`
    """
    from components.model import tasks as known

    given = _given(options)
    if given and not name:
        raise BadParams("--options are those of one task: name it, as in `retune tasks text_classification --options '{kind: multi}'`")
    found = [describe_task(one, given) for one in ([name] if name else known.available())]
    if as_json:
        print_json(found)
    elif name:
        _print_one(found[0])
    else:
        _print_all(found)


def describe_task(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the task is with `options`, and all its options.

    Slices are those of any data: there may be more for what the rows hold, as one for each type of entity.

    Raises:
        BadParams: there is no such task, or an option does not fit it.
    """
    import pandas as pd

    from components.evaluation.metric_set import decidable_metrics
    from components.model import tasks as known

    task = known.load(name, options)
    no_rows = pd.DataFrame(columns=list(dict.fromkeys((*task.columns, "id", "group", "text", "label"))), dtype="str")
    return {
        "task": name,
        "columns": task.columns,
        "inputs": task.inputs,
        "metrics": tuple(decidable_metrics(task)),
        "measures": {
            metric: task.test_metrics[metric].description if metric in task.test_metrics else _MACRO for metric in decidable_metrics(task)
        },
        "validation": task.validation_metrics,
        "baselines": task.baselines,
        "slices": tuple(task.slices(no_rows)),
        "refuses": dict(task.unsupported_settings),
        "options": list(_options(task.Options)),
    }


def _given(text: str) -> Mapping[str, Any]:
    found = parse_yaml(text, "--options")
    if not isinstance(found or {}, Mapping):
        raise BadParams(f"--options: expected settings, as {{kind: multi}}, found {text!r}")
    return found or {}


def _print_all(found: Sequence[Mapping[str, Any]]) -> None:
    table = Table(*("task", "columns", "asked with", "decided on", "baselines"), box=None, pad_edge=False)
    for one in found:
        table.add_row(one["task"], *(", ".join(one[key]) for key in ("columns", "inputs", "metrics", "baselines")))
    out.print(table)
    out.print("\nwithout options; `retune tasks NAME --options '{…}'` shows what options make of it", markup=False)


def _print_one(found: Mapping[str, Any]) -> None:
    facts = Table(box=None, pad_edge=False, show_header=False)
    for title, key in _FACTS.items():
        facts.add_row(title, ", ".join(found[key]))
    measures = Table("decided on", "meaning", box=None, pad_edge=False)
    for metric, says in found["measures"].items():
        measures.add_row(metric, escape(says))
    settings = Table("task_options", "default", "meaning", box=None, pad_edge=False)
    for field in found["options"]:
        settings.add_row(field["name"], field["default"], escape(field["meaning"] + field["choices"]))
    for number, table in enumerate((facts, measures, settings)):
        out.print(*([""] if number else []), table, sep="\n")


def _options(section: Any) -> Iterator[dict[str, str]]:
    for field, info in section.model_fields.items():
        choices = [str(choice) for choice in get_args(info.annotation) if isinstance(choice, str)]
        default = "null" if info.default is None else str(info.get_default(call_default_factory=True))
        known = f" [{' | '.join(choices)}]" if choices and not all(choice in (info.description or "") for choice in choices) else ""
        yield {"name": field, "default": default, "meaning": str(info.description), "choices": known}
