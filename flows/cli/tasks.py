"""The command that lists tasks: the data that each expects, and its settings."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.table import Table

from components.core.documents import parse_yaml
from components.core.errors import BadParams
from flows.cli.options import START, AsJson, app, out, print_json, print_table

_FACTS = {
    "columns": "columns",
    "inputs": "inputs",
    "validation": "validation",
    "baselines": "baselines",
    "slices": "slices",
    "unsupported in train": "refuses",
}


@app.command(rich_help_panel=START)
def tasks(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The task to describe.")] = None,
    options: Annotated[str, typer.Option("--options", metavar="YAML", help="Options of NAME, to show the task with them.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """List the tasks, or describe one.

    A description has the columns, metrics, baselines, slices, and every setting of `task_options`.

    Example: `retune tasks text_classification --options '{kind: multi}'`
    """
    from components.model import tasks as task_types

    options_given = _parse_options(options)
    if options_given and not name:
        raise BadParams("--options needs a task, as in `retune tasks text_classification --options '{kind: multi}'`")
    described = [describe_task(task, options_given) for task in ([name] if name else task_types.available())]
    if as_json:
        print_json(described)
    elif name:
        _print_one(described[0])
    else:
        keys = ("columns", "inputs", "metrics", "baselines")
        print_table(("task", *keys), ([task["task"], *(", ".join(task[key]) for key in keys)] for task in described))
        out.print("\nwithout options; `retune tasks NAME --options '{…}'` shows a task with options", markup=False)


def describe_task(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a task with `options`, and all its options.

    Slices are those of any data; real rows may add some, e.g. one per entity type.

    Raises:
        BadParams: the task does not exist, or an option is invalid.
    """
    import pandas as pd

    from components.evaluation.metric_set import metrics_of
    from components.model import tasks as task_types

    task = task_types.load(name, options)
    metrics = {name: metric for name, metric in metrics_of(task).items() if metric.decidable}
    no_rows = pd.DataFrame(columns=list(dict.fromkeys((*task.columns, "id", "group", "text", "label"))), dtype="str")
    return {
        "task": name,
        "columns": task.columns,
        "inputs": task.inputs,
        "metrics": tuple(metrics),
        "measures": {name: metric.description for name, metric in metrics.items()},
        "validation": task.validation_metrics,
        "baselines": task.baselines,
        "slices": tuple(task.slices(no_rows)),
        "refuses": dict(task.unsupported_settings),
        "options": list(_options(task.Options)),
    }


def _parse_options(text: str) -> Mapping[str, Any]:
    parsed = parse_yaml(text, "--options") or {}
    if not isinstance(parsed, Mapping):
        raise BadParams(f"--options: expected a mapping, e.g. {{kind: multi}}, found {text!r}")
    return parsed


def _print_one(task: Mapping[str, Any]) -> None:
    facts = Table(box=None, pad_edge=False, show_header=False)
    for title, key in _FACTS.items():
        facts.add_row(title, ", ".join(task[key]))
    out.print(facts, "")
    print_table(("metric", "meaning"), [(metric, escape(description)) for metric, description in task["measures"].items()])
    settings = [(field["name"], field["default"], escape(field["meaning"] + field["choices"])) for field in task["options"]]
    out.print()
    print_table(("task_options", "default", "meaning"), settings)


def _options(section: Any) -> Iterator[dict[str, str]]:
    for field, info in section.model_fields.items():
        choices = [str(choice) for choice in get_args(info.annotation) if isinstance(choice, str)]
        default = "null" if info.default is None else str(info.get_default(call_default_factory=True))
        listed = f" [{' | '.join(choices)}]" if choices and not all(choice in (info.description or "") for choice in choices) else ""
        yield {"name": field, "default": default, "meaning": str(info.description), "choices": listed}
