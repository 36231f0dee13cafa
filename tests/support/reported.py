"""The artifacts of a run with two classes on disk, and a parser for its report page."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.lineage import Lineage
from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import CalibrationBin, ClassScore, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile, SplitProfile, TokenLengths
from components.artifacts.training import Training
from components.artifacts.tuning_result import BestTrial
from components.artifacts.validation import Check, ValidationReport
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.report import Run, write_report
from tests.support.finished import estimate

EVIL = "<script>alert('x')</script>\u202e\x07"
ROWS = 20
VOID = {"meta", "link", "br"}
BEFORE = ["verdict", "gates", "scores", "classes", "confusions", "errors", "changes"]


@dataclass
class Node:
    """One element of a page, or a piece of text (no tag)."""

    tag: str
    attributes: dict[str, str | None]
    parent: "Node | None"
    children: list["Node"] = field(default_factory=list)
    text: str = ""

    def all(self, *tags: str) -> list["Node"]:
        nodes = [self] if self.tag in tags else []
        return nodes + [node for child in self.children for node in child.all(*tags)]

    @property
    def words(self) -> str:
        return " ".join(" ".join([self.text, *(child.words for child in self.children)]).split())

    def inside(self, *tags: str) -> bool:
        return self.parent is not None and (self.parent.tag in tags or self.parent.inside(*tags))


class Tree(HTMLParser):
    """Parse a page, and assert that its elements are nested correctly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Node("page", {}, None)
        self.feed(html)
        assert self.at is self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(Node("", {}, self.at, text=data))


def answers(labels: tuple[str, str], wrong: set[int]) -> Predictions:
    right = np.array([labels[i % 2] for i in range(ROWS)])
    predicted = np.array([labels[(i + (i in wrong)) % 2] for i in range(ROWS)])
    confidence = np.array([0.9 - 0.01 * i for i in range(ROWS)])
    probabilities = np.array([[p, 1 - p] if word == labels[0] else [1 - p, p] for p, word in zip(confidence, predicted, strict=True)])
    ids = np.array([f"r{i:02d}" for i in range(ROWS)])
    return Predictions(ids, ids, right, predicted, probabilities, labels)


def write_metrics(workspace: Path, labels: tuple[str, ...]) -> None:
    scores = {"accuracy": estimate(0.8), "macro_f1": estimate(0.7512)}
    folder = workspace / "reports/evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    Metrics(
        rows=ROWS,
        groups=ROWS,
        test_digest="t" * 64,
        snapshot="d" * 64,
        model_digest="m" * 64,
        headline=scores,
        baselines={"tfidf": {"macro_f1": estimate(0.687)}, "majority": {"macro_f1": estimate(0.04)}},
        differences={"tfidf": {"macro_f1": estimate(0.0642)}, "majority": {"macro_f1": estimate(0.7112)}},
        classes={
            label: ClassScore(precision=0.7, recall=0.9 - 0.01 * at, f1=0.8 - 0.01 * at, rows=10, groups=10, eligible=True)
            for at, label in enumerate(labels)
        },
        left_out=(),
        brier=estimate(0.131),
        ece=0.041,
        ece_debiased=0.022,
        reliability=(CalibrationBin(confidence=0.7, accuracy=0.65, rows=5), CalibrationBin(confidence=0.9, accuracy=0.92, rows=15)),
    ).write(folder)


def write_predictions(workspace: Path, predictions: Predictions) -> None:
    folder = workspace / "reports/evaluation/predictions"
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / "candidate.parquet")


def write_data(workspace: Path, labels: tuple[str, ...], text: str, column: str = "text") -> None:
    for folder in ("data/raw", "data/validated", "data/prepared/test"):
        (workspace / folder).mkdir(parents=True)
    SnapshotManifest(
        source=text[:60], format="csv", rows=10_182, columns=("id", column), source_columns={}, parts=(), digest="d" * 64, taken_at="now"
    ).write(workspace / "data/raw")
    checks = (
        Check(name="not_null", scope="row", column=column, passed=False, expected="no null", observed=text, failures=11),
        Check(name="row_count", scope="suite", column=None, passed=True, expected="100", observed="10182", failures=0),
    )
    ValidationReport(
        snapshot="d" * 64, accepted=True, rows_in=10_182, kept=10_171, quarantined=11, reasons={text: 11}, checks=checks
    ).write(workspace / "data/validated")
    lengths = TokenLengths(
        max_length=64, mean=11.8, quantiles={"p50": 11}, histogram=((3, 5), (4, 9)), cut_rows=2, cut_share=0.0021, cut_token_share=0.001
    )
    splits = {name: SplitProfile(rows=3_400, groups=30, labels=dict.fromkeys(labels, 1_700)) for name in ("train", "validation", "test")}
    Profile(
        snapshot="d" * 64, rows_in=10_171, kept=10_118, exact_duplicates=44, near_duplicates=0, conflicting=9, labels=labels,
        splits=splits, tokens=lengths, test_digest="t" * 64, learn_digest="l" * 64, warnings=(text,),
    ).write(workspace / "data/prepared")  # fmt: skip
    ids = [f"r{i:02d}" for i in range(ROWS)]
    pq.write_table(pa.table({"id": ids, "text": [text] * ROWS}), workspace / "data/prepared/test/test.parquet")
    removed = {"id": ["c1"], "reason": ["conflicting labels"], "text": [text], "label": [labels[0]]}
    pq.write_table(pa.table(removed), workspace / "data/prepared/removed.parquet")


def write_models(workspace: Path, name: str = "learning_rate") -> None:
    for folder in ("models/tuned", "models/trained"):
        (workspace / folder).mkdir(parents=True)
    params = [json.dumps({name: 10.0**-at, "scheduler": name}) for at in (3, 4, 5)]
    trials = {"number": [0, 1, 2], "state": ["COMPLETE", "PRUNED", "FAIL"], "value": [0.61, 0.52, None], "params": params}
    pq.write_table(
        pa.table(trials | {"seconds": [9.0, 3.0, 1.0], "intermediate": ['{"20": 0.4}'] * 3}), workspace / "models/tuned/trials.parquet"
    )
    BestTrial(
        study="s", number=0, metric="macro_f1", value=0.61, settings={name: 0.001}, complete=1, pruned=1, failed=1, seconds=13,
        importance={name: 0.9}, stopped_by="trials",
    ).write(workspace / "models/tuned")  # fmt: skip
    lines = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "eval_macro_f1": 0.7, "eval_loss": 1.2}]
    truncated = "\n".join(map(json.dumps, lines)) + '\n{"step": 3'
    (workspace / "models/trained/history.jsonl").write_text(truncated, encoding="utf-8")
    Training(
        settings={name: 0.001, "epochs": 3}, threads=2, device="cpu", precision="bfloat16", parameters=22_713_216, steps=666, epochs=3,
        best_step=20, metric="macro_f1", best_value=0.7, stopped_by="epochs", resumed=0, seconds=181, examples_per_second=117.4,
        peak_memory_mib=1893, weights_sha256="f" * 64,
    ).write(workspace / "models/trained")  # fmt: skip


def lineage(dirty: int = 0) -> Lineage:
    return Lineage(
        model="diagnosis", candidate="c" * 64, git_commit="4ab1150" + "0" * 33, dirty=dirty, data_digest="d" * 64, base_source="package:x",
        base_digest="b" * 64, hashes={"data/raw": "h.dir"}, flow_run=None, python="3.11.9", packages={"torch": "2.13.0"},
    )  # fmt: skip


def verdict(outcome: Outcome = Outcome.PASS, reason: str = "every gate passed", **gate: object) -> Verdict:
    values = {"gate": "floor", "outcome": outcome, "reason": reason, "metric": "macro_f1", "estimate": 0.7512, "low": 0.731, "high": 0.771}
    result = GateResult.model_validate(values | {"threshold": 0.65, "n": ROWS} | gate)
    passing = GateResult(gate="champion", outcome=Outcome.PASS, reason="no champion yet")
    return Verdict(
        key="k" * 64, candidate="c" * 64, champion=None, test_digest="t" * 64, outcome=outcome, reason=reason, gates=(result, passing)
    )


def finished_run(workspace: Path) -> Path:
    """Write all artifacts of a run with two classes, three wrong answers and three trials."""
    labels = ("alpha", "beta")
    write_metrics(workspace, labels)
    write_predictions(workspace, answers(labels, wrong={1, 2, 3}))
    write_data(workspace, labels, "a text of ordinary length")
    write_models(workspace)
    return workspace


def page(workspace: Path, **changes: object) -> Node:
    arguments = {"lineage": lineage(), "verdict": verdict()} | changes
    return Tree(write_report(workspace, workspace / "reports/index.html", Run(**arguments)).read_text(encoding="utf-8")).root  # type: ignore[arg-type]


def section(root: Node, name: str) -> Node:
    return next(node for node in root.all("section") if node.attributes.get("id") == name)
