"""The model card that goes with a version: `MODEL_CARD.md` in Hugging Face's format, and the same as one self-contained HTML file.

Pure from the facts of the page. What nobody recorded, as the language or the licence, is called unknown and never guessed.
"""

import json
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.artifacts.metrics import ClassScore, Estimate
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.report import forests, panel, wording
from components.report.facts import PageFacts
from components.report.page import FILTERS, HERE, account, ordered, shared_style

MOST_ROWS = 25  # of classes and of a gate's hypotheses
FEW = 3  # hypotheses from which on they are a comparison worth a table
WEAKEST = 3

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_SPECIAL = re.compile(r"[\\`*\[\]<>|~&!#]|(?<!\w)_|_(?!\w)")  # what means something to Markdown, wherever it stands
_BULLET = re.compile(r"^(?=[-+=](?:\s|$))|^(\d+)(?=[.)](?:\s|$))")  # what means something where a line begins
_HUB = re.compile(r"([\w.-]+/[\w.-]+)@[0-9a-f]{40}")  # as components/data/base_model.py names what came from the hub
_HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "weighted_f1": "f1", "brier": "brier_score"}


def card_text(facts: PageFacts) -> str:
    """Return the card: YAML front matter and Markdown."""
    from huggingface_hub import ModelCard

    body = _template().render(_context(facts))
    front = metadata(facts).to_yaml()
    return str(ModelCard(f"---\n{front}\n---\n\n{_tidy(body)}"))


def card_page(facts: PageFacts, text: str) -> str:
    """Return the card's Markdown as one HTML file; HTML inside it stays text."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("table_open", lambda *_: '<div class="wide"><table class="trials">\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    environment.filters["cut"] = wording.cut
    body = Markup(reader.render(_FRONT.sub("", text)))
    return environment.get_template("card.html.j2").render(title=facts.run.lineage.model, style=shared_style(), body=body)


def metadata(facts: PageFacts) -> Any:
    """Return the card's front matter as huggingface_hub's `ModelCardData`; nothing is asked of the hub."""
    from huggingface_hub import EvalResult, ModelCardData

    run, task = facts.run, facts.task.replace("_", "-") if facts.task else None
    source = _HUB.fullmatch(run.lineage.base_source)
    results = [
        EvalResult(
            task_type=task or "other",
            dataset_type=_slug(run.lineage.model),
            dataset_name=f"{wording.cut(run.lineage.model, 80)}, snapshot {run.lineage.data_digest[:12]}",
            dataset_split="test",
            dataset_revision=run.lineage.data_digest,
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=wording.named(name),
            metric_value=round(found.value, 6),
            metric_args={"low": round(found.low, 6), "high": round(found.high, 6), "confidence": found.confidence, "n": found.n},
        )
        for name, found in _estimates(facts)
        if all(map(math.isfinite, (found.value, found.low, found.high)))
    ]
    return ModelCardData(
        base_model=source[1] if source else None,
        eval_results=results or None,
        library_name="transformers",
        license="unknown",
        metrics=sorted({one.metric_type for one in results}) or None,
        model_name=wording.cut(run.lineage.model, 80),
        pipeline_tag=task,
        tags=["retune", f"verdict:{run.verdict.outcome.lower()}"],
    )


def limits(facts: PageFacts) -> list[str]:
    """Return what a user should know before relying on the model, each a sentence from the facts."""
    verdict, profile = facts.run.verdict, facts.profile
    said = [one.says for gate in verdict.gates for one in panel.worst_first(gate.hypotheses) if one.rejected]
    undecided = [f"{wording.named(gate.gate)} ({gate.reason})" for gate in verdict.gates if gate.outcome is Outcome.INCONCLUSIVE]
    unasked = [f"{wording.named(gate.gate)} ({gate.reason.removeprefix('not asked: ')})" for gate in verdict.gates if not gate.asked]
    off = [wording.named(name) for name in verdict.off]
    looks = f"{verdict.look} candidates were judged on this test set, or on part of its rows, so its scores flatter a little"
    dirty = f"{wording.many(facts.run.lineage.dirty, 'file')} differed from the commit: the commit alone does not rebuild it"
    sentences = [
        *(f"Worse than it should be: {one}" for one in said[:5]),
        *_about_classes(facts),
        _about_lengths(facts),
        _about_calibration(facts.metrics.ece_debiased),
        f"Could not be established: {_listed(undecided)}" if undecided else "",
        f"Not asked, for there was nothing to judge: {_listed(unasked)}" if unasked else "",
        f"Not examined, for the gate was switched off: {_listed(off)}" if off else "",
        looks if (verdict.look or 0) > 1 else "",
        dirty if facts.run.lineage.dirty else "",
        *(profile.warnings if profile else ()),
        "How it does on other data than this test set is unknown, and so is what the gates below do not ask",
    ]
    return [sentence for sentence in sentences if sentence]


def _about_classes(facts: PageFacts) -> list[str]:
    """Return the classes that are too rare to be scored, were never seen, or are answered worst."""
    classes, profile = facts.metrics.classes, facts.profile
    rare = sorted({*facts.metrics.left_out, *(name for name, score in classes.items() if not score.eligible)})
    train = profile.splits.get("train") if profile else None
    untaught = [label for label in profile.labels if not train.labels.get(label)] if profile and train else []
    worst = [(name, score) for name, score in _worst_classes(facts) if score.eligible][:WEAKEST]
    weak = [f"{name} (F1 {wording.metric(score.f1)}, {wording.many(score.rows, 'test row')})" for name, score in worst]
    found = (("Too few test rows to tell how good it is on", rare), ("Never seen in training", untaught), ("Weakest on", weak))
    return [f"{what}: {_listed(names)}" for what, names in found if names]


def _about_calibration(error: float | None) -> str:
    if error is None:
        return ""
    return f"Its probabilities are off by {wording.metric(error)} (debiased calibration error, root mean square)"


def _about_lengths(facts: PageFacts) -> str:
    if facts.profile is None:
        return "How many texts are cut for their length is unknown"
    tokens = facts.profile.tokens
    rows, share = wording.percent(tokens.cut_share), wording.percent(tokens.cut_token_share)
    return f"Texts beyond {wording.count(tokens.max_length)} tokens are cut: {rows} of the rows at hand, {share} of all tokens"


def _context(facts: PageFacts) -> dict[str, Any]:
    run, metrics = facts.run, facts.metrics
    gates = panel.in_order(run.verdict.gates)
    rivals = _rivals(facts)
    worst = _worst_classes(facts)
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
        "address": f"models:/{run.lineage.model}" + (f"/{run.version}" if run.version else "@champion"),
        "account": account(facts),
        "splits": _splits(facts),
        "settings": [(name, wording.setting(value)) for name, value in sorted(facts.training.settings.items())] if facts.training else [],
        "rivals": [who for who, _ in rivals],
        "scores": [_score_row(name, found, [gaps for _, gaps in rivals]) for name, found in _estimates(facts)],
        "classes": [_class_row(name, score) for name, score in worst[:MOST_ROWS]],
        "more_classes": len(worst[MOST_ROWS:]),
        "tally": wording.many(len(gates), "gate") + ": " + panel.tally(gates) if gates else "No gate was asked",
        "gates": [_gate_row(gate) for gate in gates],
        "comparisons": [_comparison(gate) for gate in gates if len(gate.hypotheses) >= FEW],
        "trail": _trail(facts),
    }


def _estimates(facts: PageFacts) -> list[tuple[str, Estimate]]:
    headline = facts.metrics.headline
    return [(name, headline[name]) for name in ordered(headline)]


def _rivals(facts: PageFacts) -> list[tuple[str, dict[str, Estimate]]]:
    champion = facts.run.champion
    first = [(f"champion {champion.version}", dict(champion.differences))] if champion and champion.differences else []
    return [*first, *((wording.named(name), gaps) for name, gaps in sorted(facts.metrics.differences.items(), reverse=True))]


def _score_row(name: str, found: Estimate, gaps: list[dict[str, Estimate]]) -> tuple[str, ...]:
    against = [f"{wording.signed(one.value)} [{forests.between(one, signs=True)}]" if (one := gap.get(name)) else "" for gap in gaps]
    interval = f"{wording.number(found.confidence * 100)} %: {forests.between(found)}" + (
        f", in doubt: {found.doubt}" if found.doubt else ""
    )
    return (wording.named(name), wording.metric(found.value), interval, *against)


def _worst_classes(facts: PageFacts) -> list[tuple[str, ClassScore]]:
    return sorted(facts.metrics.classes.items(), key=lambda item: (not item[1].eligible, item[1].f1, item[0]))


def _class_row(name: str, score: ClassScore) -> tuple[str, ...]:
    scores = (wording.metric(value) for value in (score.f1, score.precision, score.recall))
    return (wording.cut(name, 100), *scores, wording.count(score.rows), wording.cell(score.eligible))


def _splits(facts: PageFacts) -> list[tuple[str, ...]]:
    splits = facts.profile.splits.items() if facts.profile else ()
    return [
        (name, wording.count(one.rows), wording.count(one.groups), wording.count(sum(map(bool, one.labels.values()))))
        for name, one in splits
    ]


def _gate_row(gate: GateResult) -> tuple[str, ...]:
    signs = forests.is_difference(gate)
    known = gate.estimate is not None
    between = forests.interval(gate.low, gate.high, signs) if known else ""
    estimate = (
        " ".join([wording.named(gate.metric or ""), forests.amount(gate.estimate, signs)]).strip() if gate.estimate is not None else ""
    )
    threshold = wording.number(gate.threshold) if gate.threshold is not None else ""
    return (wording.named(gate.gate), gate.role, gate.shown, estimate, between, threshold, wording.cut(gate.reason, 300))


def _comparison(gate: GateResult) -> tuple[str, list[tuple[str, ...]], int]:
    ranked = panel.worst_first(gate.hypotheses)
    return gate.gate, [_hypothesis_row(one) for one in ranked[:MOST_ROWS]], len(ranked[MOST_ROWS:])


def _hypothesis_row(one: Hypothesis) -> tuple[str, ...]:
    signs = min(forests.numbers(one), default=0.0) < 0
    known = one.estimate is not None
    p = wording.probability(one.p if one.adjusted is None else one.adjusted) + (" (not corrected)" if one.adjusted is None else "")
    estimate = forests.amount(one.estimate, signs) if one.estimate is not None else ""
    between = forests.interval(one.low, one.high, signs) if known else ""
    return (wording.cut(one.name, 140), estimate, between, wording.count(one.n), p, wording.cell(one.rejected))


def _trail(facts: PageFacts) -> list[tuple[str, Any]]:
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


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return "; ".join(wording.cut(name, 160) for name in names[:8]) + more


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "data"


@cache
def _template() -> Any:
    """Return the template; whatever it writes is escaped for Markdown unless it is markup already."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else escaped(value),
    )
    environment.filters.update({name: getattr(wording, name) for name in FILTERS})
    environment.filters.update(code=code, lines=_lines, verbatim=_verbatim, python=lambda text: Markup(json.dumps(wording.visible(text))))
    environment.globals.update(interval=forests.interval)
    return environment.get_template("card.md.j2")


def escaped(text: object) -> Markup:
    """Return text on one line that Markdown shows as it is: no emphasis, no link, no table cell, no HTML."""
    line = " ".join(wording.visible(str(text)).split(" "))
    return Markup(_BULLET.sub(r"\1\\", _SPECIAL.sub(r"\\\g<0>", line)))


def code(text: object) -> Markup:
    """Return text as code where it is plain, else escaped."""
    line = wording.visible(str(text))
    return Markup(f"`{line}`") if re.fullmatch(r"[\w.:/@=+, -]+", line) else escaped(line)


def _lines(rows: Iterable[Iterable[object]]) -> Markup:
    """Return the rows of a table."""
    cells = ([cell if isinstance(cell, Markup) else escaped(cell) for cell in row] for row in rows)
    return Markup("\n").join(Markup("| ") + Markup(" | ").join(row) + Markup(" |") for row in cells)


def _verbatim(text: str) -> Markup:
    """Return a line of a code block; a fence inside it would end the block."""
    return Markup(wording.visible(text).replace("```", "'''"))


def _tidy(body: str) -> str:
    """Return Markdown with at most one empty line in a row, and none between the rows of a table."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\|\n\n+(?=\|)", "|\n", body)).strip() + "\n"
