"""Time and memory of the self-test and of all gates on 10,000 test rows, without model inference.

`python -m bench panel [--json FILE] [--rows N] [--check]` simulates two models' answers to texts like those of the shipped example, five
past test sets and a training set four times as large, and judges them. With --check, a figure above its limit gives exit code 1.
"""

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench._output import parser, report
from components.artifacts.past_test_set import PastTestSet
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import Role
from components.gates import GatesParams, available
from components.gates.support.evidence import Evidence, ReferenceModel, TrainingRows
from components.judge import judge
from components.judge.selftest import selftest

ROOT = Path(__file__).parent.parent
SECONDS = 20
MEMORY_GIB = 1
LABELS = 22
NEED_A_MODEL = ("servability", "cost", "behaviour")  # gates that need a running model


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser("panel", __doc__)
    arguments.add_argument("--rows", type=int, default=10_000)
    arguments.add_argument("--check", action="store_true", help="exit with 1 if a figure is above its limit")
    options = arguments.parse_args(argv)
    figures = measure(options.rows)
    report(figures, options.json)
    exceeded = [name for name, limit in (("seconds", SECONDS), ("peak_gib", MEMORY_GIB)) if figures[name] > limit]
    for name in exceeded:
        print(f"above its limit: {name} {figures[name]}")
    return 1 if options.check and exceeded else 0


def measure(rows: int) -> dict[str, Any]:
    """Return the seconds of self-test and gates, the peak memory of this process, and the number of hypotheses."""
    evidence = make_evidence(rows)
    gates = GatesParams.model_validate({name: {"role": Role.OFF} for name in NEED_A_MODEL if name in available()})
    started = time.perf_counter()
    tested = selftest(evidence, gates)
    between = time.perf_counter()
    verdict = judge(evidence, gates, key="k", candidate_digest="c", test_digest="t", tested=tested)
    ended = time.perf_counter()
    return {
        "rows": rows,
        "seconds": round(ended - started, 2),
        "self_test_seconds": round(between - started, 2),
        "gates_seconds": round(ended - between, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "gates": len(verdict.gates),
        "hypotheses": sum(len(gate.hypotheses) for gate in verdict.gates),
        "outcome": verdict.outcome.value,
    }


def make_evidence(rows: int) -> Evidence:
    """Return the evidence on two models with 85 % accuracy each, in groups of about five rows."""
    draw = np.random.default_rng(0)
    test, train = texts(draw, "t", rows), texts(draw, "l", 4 * rows)
    candidate, champion, baseline = answers(draw, test, 0.85), answers(draw, test, 0.85), answers(draw, test, 0.6)
    past_test_sets = []
    for number in range(5):
        past = texts(draw, f"e{number}", rows)
        past_test_sets.append(PastTestSet(f"test set {number}", answers(draw, past, 0.85), answers(draw, past, 0.85)))
    return Evidence(
        candidate,
        {"tfidf": baseline, "majority": baseline},
        ReferenceModel("4", champion),
        10,
        best_champion=ReferenceModel("2", answers(draw, test, 0.85)),
        level=0.01,
        candidate_number=1,
        rows=test,
        train=train,
        training_rows=(TrainingRows("champion version 4", train.iloc[: 3 * rows]),),
        past_test_sets=tuple(past_test_sets),
    )


def texts(draw: np.random.Generator, name: str, rows: int) -> pd.DataFrame:
    """Return rows with texts that have the word frequencies and lengths of the shipped example."""
    example = pd.read_csv(ROOT / "examples/diagnosis/diagnosis.csv", dtype=str, keep_default_na=False)["text"].str.split()
    words = np.array([word for text in example for word in text])
    lengths = draw.choice(np.array([len(text) for text in example]), size=rows)
    chosen = iter(np.split(draw.choice(words, size=lengths.sum()), np.cumsum(lengths)[:-1]))
    labels = draw.integers(0, LABELS, rows)
    ids = [f"{name}{row:07}" for row in range(rows)]
    return pd.DataFrame(
        {
            "id": ids,
            "group": [f"{name}{row // 5:07}" for row in range(rows)],
            "text": [" ".join(text) for text in chosen],
            "label": [f"label {number:02}" for number in labels],
            "source": [f"source {number}" for number in draw.integers(0, 4, rows)],
        }
    )


def answers(draw: np.random.Generator, rows: pd.DataFrame, accuracy: float) -> Predictions:
    """Return the answers of a model with this accuracy, which is more confident on correct answers."""
    labels = tuple(f"label {number:02}" for number in range(LABELS))
    expected = rows["label"].to_numpy(dtype=np.str_)
    truth = np.searchsorted(labels, expected)
    correct = draw.random(len(rows)) < accuracy
    predicted = np.where(correct, truth, (truth + draw.integers(1, LABELS, len(rows))) % LABELS)
    confidence = np.where(correct, draw.uniform(0.7, 0.99, len(rows)), draw.uniform(0.3, 0.8, len(rows)))
    probabilities = np.repeat(((1 - confidence) / (LABELS - 1))[:, None], LABELS, axis=1)
    probabilities[np.arange(len(rows)), predicted] = confidence
    ids, groups = (rows[name].to_numpy(dtype=np.str_) for name in ("id", "group"))
    return Predictions(ids, groups, expected, np.array(labels)[predicted], probabilities, labels)
