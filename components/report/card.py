"""The model card of a version: `MODEL_CARD.md` in Hugging Face's format, and the same as one self-contained HTML file.

A pure function of the page's facts. Facts that are not recorded, such as language and licence, are called unknown.
"""

import math
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from markupsafe import Markup

from components.artifacts.metrics import ClassScore, Estimate
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.core.errors import listed
from components.report import forests, leaderboard, panel, wording
from components.report.facts import PageFacts
from components.report.page import account, environment, ordered, score_name, shared_style, worst_classes
from components.stats.scores import CLASSIFICATION

MOST_ROWS = 25  # classes, and hypotheses per gate
FEW = 3  # minimum number of hypotheses for a table
WEAKEST = 3

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_SPECIAL = re.compile(r"[\\`*\[\]<>|~&!#]|(?<!\w)_|_(?!\w)")  # special in Markdown anywhere
_BULLET = re.compile(r"^(?=[-+=](?:\s|$))|^(\d+)(?=[.)](?:\s|$))")  # special in Markdown at the start of a line
_HUB = re.compile(r"([\w.-]+/[\w.-]+)@[0-9a-f]{40}")  # format of components/data/base_model.py
_HUB_TYPES = {name: metric.hub_type for name, metric in CLASSIFICATION.items() if metric.hub_type}


def card_text(facts: PageFacts) -> str:
    """Return the card: YAML front matter and Markdown."""
    from huggingface_hub import ModelCard

    body = _template().render(_context(facts))
    front = metadata(facts).to_yaml()
    return str(ModelCard(f"---\n{front}\n---\n\n{_tidy(body)}"))


def card_page(facts: PageFacts, text: str) -> str:
    """Return the card's Markdown as one HTML file; HTML inside it is escaped."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("table_open", lambda *_: '<div class="wide"><table class="trials">\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    template = environment(autoescape=True).get_template("card.html.j2")
    return template.render(title=facts.run.lineage.model, style=shared_style(), body=Markup(reader.render(_FRONT.sub("", text))))


def metadata(facts: PageFacts) -> Any:
    """Return the card's front matter as huggingface_hub's `ModelCardData`, without any request to the hub."""
    from huggingface_hub import EvalResult, ModelCardData

    run, task = facts.run, facts.task.replace("_", "-") if facts.task else None
    source = _HUB.fullmatch(run.lineage.base_source)
    results = [
        EvalResult(
            task_type=task or "other",
            dataset_type=re.sub(r"[^\w.-]+", "-", run.lineage.model).strip("-") or "data",
            dataset_name=f"{wording.cut(run.lineage.model, 80)}, snapshot {run.lineage.data_digest[:12]}",
            dataset_split="test",
            dataset_revision=run.lineage.data_digest,
            metric_type=_HUB_TYPES.get(name, name),
            metric_name=wording.named(name),
            metric_value=round(estimate.value, 6),
            metric_args={
                "low": round(estimate.low, 6),
                "high": round(estimate.high, 6),
                "confidence": estimate.confidence,
                "n": estimate.n,
            },
        )
        for name, estimate in ordered(facts.metrics.headline)
        if all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    ]
    return ModelCardData(
        base_model=source[1] if source else None,
        eval_results=results or None,
        library_name="transformers",
        language=list(run.card.get("languages") or []) or None,
        license=str(run.card.get("licence") or "unknown").lower(),
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=wording.cut(run.lineage.model, 80),
        pipeline_tag=task,
        tags=["retune", f"verdict:{run.verdict.outcome.lower()}"],
    )


def limits(facts: PageFacts) -> list[str]:
    """Return the limits of the model, one sentence each."""
    verdict, profile, error = facts.run.verdict, facts.profile, facts.metrics.ece_debiased
    rejected = [way.says for gate in verdict.gates for way in panel.worst_first(gate.hypotheses) if way.rejected]
    undecided = [f"{wording.named(gate.gate)} ({gate.reason})" for gate in verdict.gates if gate.outcome is Outcome.INCONCLUSIVE]
    skipped = [f"{wording.named(gate.gate)} ({gate.reason})" for gate in verdict.gates if not gate.applicable]
    off = [wording.named(name) for name in verdict.off]
    reused = f"{verdict.look} candidates were judged on this test set, or on part of its rows, so its scores are slightly optimistic"
    dirty = f"{wording.many(facts.run.lineage.dirty, 'file')} differed from the commit: the commit alone cannot rebuild this model"
    sentences = [
        *(f"Rejected: {reason}" for reason in rejected[:5]),
        *_about_classes(facts),
        _about_lengths(facts),
        f"Debiased calibration error of its probabilities (root mean square): {wording.metric(error)}" if error is not None else "",
        f"Inconclusive: {_join(undecided)}" if undecided else "",
        f"Not applicable, because there was nothing to judge: {_join(skipped)}" if skipped else "",
        f"Not examined, because the gate is off: {_join(off)}" if off else "",
        reused if (verdict.look or 0) > 1 else "",
        dirty if facts.run.lineage.dirty else "",
        *(profile.warnings if profile else ()),
        "The quality on other data than this test set is unknown, and so is everything that the gates below do not examine",
    ]
    return [sentence for sentence in sentences if sentence]


def _about_classes(facts: PageFacts) -> list[str]:
    """Return the classes that are too rare to be scored, missing in training, or worst."""
    classes, profile = facts.metrics.classes, facts.profile
    rare = sorted({*facts.metrics.left_out, *(name for name, score in classes.items() if not score.eligible)})
    train = profile.splits.get("train") if profile else None
    untrained = [label for label in profile.labels if not train.labels.get(label)] if profile and train else []
    worst = [(name, score) for name, score in worst_classes(facts.metrics) if score.eligible][:WEAKEST]
    weak = [f"{name} (F1 {wording.metric(score.f1)}, {wording.many(score.rows, 'test row')})" for name, score in worst]
    groups = (("Too few test rows to score", rare), ("Not in the training rows", untrained), ("Weakest classes", weak))
    return [f"{title}: {_join(names)}" for title, names in groups if names]


def _about_lengths(facts: PageFacts) -> str:
    if facts.profile is None:
        return "The share of truncated texts is unknown"
    tokens = facts.profile.tokens
    rows, share = wording.percent(tokens.cut_share), wording.percent(tokens.cut_token_share)
    return f"Texts longer than {wording.count(tokens.max_length)} tokens are truncated: {rows} of the rows, {share} of all tokens"


def _context(facts: PageFacts) -> dict[str, Any]:
    run, metrics = facts.run, facts.metrics
    gates = panel.in_order(run.verdict.gates)
    references = _references(facts)
    worst = worst_classes(facts.metrics)
    return {
        "facts": facts,
        "run": run,
        "metrics": metrics,
        "lineage": run.lineage,
        "verdict": run.verdict,
        "training": facts.training,
        "task": wording.named(facts.task) if facts.task else "a model of unknown task",
        "labels": facts.profile.labels if facts.profile else tuple(sorted(metrics.classes)),
        "limits": limits(facts),
        "account": account(facts),
        "splits": _splits(facts),
        "settings": [(name, wording.setting(value)) for name, value in sorted(facts.training.settings.items())] if facts.training else [],
        "search": leaderboard.summary(facts.leaderboard) if facts.leaderboard else "",
        "references": [name for name, _ in references],
        "scores": [
            _score_row(score_name(name, metrics), estimate, [gaps.get(name) for _, gaps in references])
            for name, estimate in ordered(metrics.headline)
        ],
        "classes": [_class_row(name, score) for name, score in worst[:MOST_ROWS]],
        "more_classes": len(worst[MOST_ROWS:]),
        "tally": panel.tally(gates) or "No gate was run",
        "gates": [_gate_row(gate) for gate in gates],
        "comparisons": [_comparison(gate) for gate in gates if len(gate.hypotheses) >= FEW],
        "origin": _origin(facts),
    }


def _references(facts: PageFacts) -> list[tuple[str, dict[str, Estimate]]]:
    champion = facts.run.champion
    first = [(f"champion {champion.version}", dict(champion.differences))] if champion and champion.differences else []
    return [*first, *((wording.named(name), gaps) for name, gaps in sorted(facts.metrics.differences.items(), reverse=True))]


def _score_row(title: str, estimate: Estimate, gaps: list[Estimate | None]) -> tuple[str, ...]:
    against = [f"{wording.signed(gap.value)} [{forests.between(gap, signs=True)}]" if gap else "" for gap in gaps]
    interval = f"{wording.number(estimate.confidence * 100)} %: {forests.between(estimate)}"
    interval += f", in doubt: {estimate.doubt}" if estimate.doubt else ""
    return (title, wording.metric(estimate.value), interval, *against)


def _class_row(name: str, score: ClassScore) -> tuple[str, ...]:
    scores = (wording.metric(value) for value in (score.f1, score.precision, score.recall))
    return (wording.cut(name, 100), *scores, wording.count(score.rows), wording.cell(score.eligible))


def _splits(facts: PageFacts) -> list[tuple[str, ...]]:
    splits = facts.profile.splits.items() if facts.profile else ()
    return [
        (name, wording.count(split.rows), wording.count(split.groups), wording.count(sum(map(bool, split.labels.values()))))
        for name, split in splits
    ]


def _gate_row(gate: GateResult) -> tuple[str, ...]:
    signs = forests.is_difference(gate)
    estimate = interval = ""
    if gate.estimate is not None:
        interval = forests.interval(gate.low, gate.high, signs)
        estimate = f"{wording.named(gate.metric or '')} {forests.amount(gate.estimate, signs)}".strip()
    threshold = wording.number(gate.threshold) if gate.threshold is not None else ""
    return (wording.named(gate.gate), gate.role, gate.outcome, estimate, interval, threshold, wording.cut(gate.reason, 300))


def _comparison(gate: GateResult) -> tuple[str, list[tuple[str, ...]], int]:
    ranked = panel.worst_first(gate.hypotheses)
    return gate.gate, [_hypothesis_row(way) for way in ranked[:MOST_ROWS]], len(ranked[MOST_ROWS:])


def _hypothesis_row(way: Hypothesis) -> tuple[str, ...]:
    signs = min(forests.numbers(way), default=0.0) < 0
    p = f"{wording.probability(way.p)} (not corrected)" if way.adjusted is None else wording.probability(way.adjusted)
    estimate = forests.amount(way.estimate, signs) if way.estimate is not None else ""
    interval = forests.interval(way.low, way.high, signs) if way.estimate is not None else ""
    return (wording.cut(way.name, 140), estimate, interval, wording.count(way.n), p, wording.cell(way.rejected))


def _origin(facts: PageFacts) -> list[tuple[str, Any]]:
    lineage = facts.run.lineage
    digests = [
        ("git commit", lineage.git_commit + (f" and {wording.many(lineage.dirty, 'changed file')}" if lineage.dirty else "")),
        ("snapshot", lineage.data_digest),
        ("test set", facts.metrics.test_digest),
        ("base model", lineage.base_digest),
        ("weights", facts.training.weights_sha256 if facts.training else "unknown"),
        ("flow run", lineage.flow_run or "none"),
        ("verdict", facts.run.verdict.key),
        ("evidence", facts.run.verdict.evidence),
        ("Python", lineage.python),
    ]
    return [(name, code(value)) for name, value in digests]


def _join(names: list[str]) -> str:
    return listed([wording.cut(name, 160) for name in names], 8, "; ")


@cache
def _template() -> Any:
    """Return the template; its output is escaped for Markdown unless it is markup already."""
    card = environment(autoescape=False, finalize=lambda value: value if isinstance(value, Markup) else escaped(value))
    card.filters.update(code=code, lines=_lines, verbatim=_verbatim)
    return card.get_template("card.md.j2")


def escaped(text: object) -> Markup:
    """Return the text on one line, escaped so that Markdown shows it literally."""
    line = " ".join(wording.visible(str(text)).split(" "))
    return Markup(_BULLET.sub(r"\1\\", _SPECIAL.sub(r"\\\g<0>", line)))


def code(text: object) -> Markup:
    """Return plain text as code, other text escaped."""
    line = wording.visible(str(text))
    return Markup(f"`{line}`") if re.fullmatch(r"[\w.:/@=+, -]+", line) else escaped(line)


def _lines(rows: Iterable[Iterable[object]]) -> Markup:
    """Return the rows of a Markdown table."""
    cells = ([cell if isinstance(cell, Markup) else escaped(cell) for cell in row] for row in rows)
    return Markup("\n").join(Markup("| ") + Markup(" | ").join(row) + Markup(" |") for row in cells)


def _verbatim(text: str) -> Markup:
    """Return a line of a code block, without a fence that would end the block."""
    return Markup(wording.visible(text).replace("```", "'''"))


def _tidy(body: str) -> str:
    """Return Markdown without repeated empty lines and without empty lines between table rows."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\|\n\n+(?=\|)", "|\n", body)).strip() + "\n"
