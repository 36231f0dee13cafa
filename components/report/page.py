"""Render the page: compute the content of each section, and fill the template."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from components.artifacts.lineage import Lineage
from components.artifacts.metrics import ClassScore, Estimate, Metrics
from components.artifacts.verdict import Verdict
from components.model.support.metrics import Metric
from components.report import charts, error_analysis, forests, leaderboard, panel, standing, wording
from components.report.facts import ChampionFacts, PageFacts
from components.report.matrix import MOST_CLASSES, confusion_matrix
from components.report.standing import Standing
from components.report.svg import spanning
from components.stats.scores import CLASSIFICATION

HERE = Path(__file__).parent
FILTERS = (
    *("named", "count", "number", "metric", "signed", "probability", "percent"),
    *("duration", "moment", "quantile", "setting", "cut", "visible", "whole", "coded", "many"),
)
SHOWN_ROWS = 30
SHOWN_CHANGES = 12
ABSENT = "not set"


@dataclass(frozen=True)
class PageModel:
    """A model scored on the test split; `differences` are candidate minus this model."""

    name: str
    shape: str
    tone: str
    scores: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]


def render(facts: PageFacts) -> str:
    """Return the page."""
    return _template().render(facts=facts, run=facts.run, metrics=facts.metrics, **_sections(facts))


def render_standing(model: str, verdict: Verdict, version: str | None, state: Standing) -> Markup:
    """Return the part of the page that changes after the verdict."""
    following = standing.next_step(model, version, verdict.outcome, state) if version is not None else ""
    template = environment(autoescape=True).get_template("standing.html.j2")
    return Markup(template.render(meaning=standing.meaning(verdict, version, state), next_step=following))


def shared_style() -> Markup:
    """Return the style sheet of page and card."""
    return Markup((HERE / "style.css").read_text(encoding="utf-8"))


def environment(**options: Any) -> Environment:
    """Return an environment for the templates of page and card, with the formats of `wording` as filters."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    made.filters.update({name: getattr(wording, name) for name in FILTERS})
    made.globals.update(interval=forests.interval)
    return made


@cache
def _template() -> Template:
    page = environment(autoescape=True)
    page.globals.update(icon=forests.icon, tone=forests.tone, legend=forests.legend, amount=forests.amount, bar=forests.bar)
    page.globals.update(SHOWN_CHANGES=SHOWN_CHANGES, style=shared_style(), mark_of=leaderboard.style)
    return page.get_template("page.html.j2")


def _sections(facts: PageFacts) -> dict[str, Any]:
    return {
        **panel.panel(facts.run.verdict),
        "standing": render_standing(facts.run.lineage.model, facts.run.verdict, facts.run.version, facts.run.standing),
        "figures": _key_figures(facts),
        **_scores(facts.metrics, facts.run.champion),
        **_classes(facts.metrics),
        **_errors(facts),
        "answers": [panel.grid(table) for table in facts.metrics.tables],
        **_changes(facts),
        **_data(facts),
        **leaderboard.leaderboard(facts.leaderboard),
        **_search(facts),
        **_training(facts),
        "reliability": charts.reliability(facts.metrics.reliability) if facts.metrics.reliability else None,
    }


def _key_figures(facts: PageFacts) -> list[tuple[str, str, str]]:
    """Return the key figures at the top: name, value and qualifier."""
    metrics, champion = facts.metrics, facts.run.champion
    units = f"in {wording.count(metrics.groups)} groups" if metrics.groups < metrics.rows else "each counted once"
    figures = [("test rows", wording.count(metrics.rows), units)]
    if not metrics.headline:
        return figures
    first, estimate = ordered(metrics.headline)[0]
    name = score_name(first, metrics)
    references = [(f"champion {champion.version}", champion.differences)] if champion else []
    best, guess = metrics.best_baseline(first), guessing(metrics)
    baselines = sorted((name for name in metrics.differences if name not in (guess, metrics.method)), key=lambda name: name != best)
    references += [(wording.named(baseline), metrics.differences[baseline]) for baseline in baselines]
    against = [
        (f"against {wording.cut(reference, 30)}", wording.signed(gaps[first].value), f"{name}, {forests.between(gaps[first], signs=True)}")
        for reference, gaps in references[:2]
        if first in gaps
    ]
    level = wording.number(estimate.confidence * 100)
    return [(name, wording.metric(estimate.value), f"{level}{wording.THIN}% interval {forests.between(estimate)}"), *against, *figures]


def ordered(headline: Mapping[str, Estimate]) -> list[tuple[str, Estimate]]:
    """Return the metrics with their estimates, those of classification first, by rank."""
    ranks = {name: metric.rank for name, metric in CLASSIFICATION.items()}
    return sorted(headline.items(), key=lambda item: ranks.get(item[0], Metric.rank))


def score_name(name: str, metrics: Metrics) -> str:
    """Return the display name of a score, with the number of its classes if some are left out."""
    return wording.scored(name, len(metrics.classes), len(metrics.left_out))


def guessing(metrics: Metrics) -> str | None:
    """Return the guessing baseline: the first of several, because tasks list them in order of strength."""
    return next(iter(metrics.baselines)) if len(metrics.baselines) > 1 else None


def _scores(metrics: Metrics, champion: ChampionFacts | None) -> dict[str, Any]:
    models = _models(metrics, champion)
    guess = wording.named(guessing(metrics) or "")
    scored = [model.scores for model in models if model.name != guess]  # a guessing baseline would compress the scale
    scale = forests.score_scale(end for scores in scored for e in scores.values() for end in (e.low, e.high))
    shared = bool(metrics.classes)  # class metrics are shares, other metrics may have any unit
    blocks = []
    for name, _ in ordered(metrics.headline):
        own = scale if shared else spanning((end for s in scored if name in s for end in (s[name].low, s[name].high)), 4)
        rows = [
            (model, estimate, model.differences.get(name), forests.estimate_plot(own, estimate, model.shape, model.tone))
            for model in models
            if (estimate := model.scores.get(name))
        ]
        blocks.append((score_name(name, metrics), name, rows, forests.estimate_plot(own, None, "", "") if shared else forests.axis(own)))
    off_scale = shared and any(estimate.value < scale.low for _, _, rows, _ in blocks for _, estimate, _, _ in rows)
    best = metrics.best_baseline(blocks[0][1]) if blocks and metrics.validation else None
    return {
        "scores": blocks,
        "off_scale": off_scale,
        "score_axis": forests.axis(scale) if shared else None,
        "best_baseline": wording.named(best) if best else None,
    }


def _models(metrics: Metrics, champion: ChampionFacts | None) -> list[PageModel]:
    """Return the candidate, the champion and the baselines, the guessing one last."""
    models = [PageModel("candidate", "circle", "candidate", metrics.headline, {})]
    if champion is not None:
        models.append(PageModel(f"champion {champion.version}", "diamond", "champion", champion.headline, champion.differences))
    for at, name in enumerate(sorted(metrics.baselines, key=lambda name: name == guessing(metrics))):
        shape = ("square", "triangle")[at % 2]
        models.append(PageModel(wording.named(name), shape, "baseline hollow", metrics.baselines[name], metrics.differences.get(name, {})))
    return models


def _classes(metrics: Metrics) -> dict[str, Any]:
    overall = metrics.headline.get("macro_f1")
    scale = forests.score_scale([1.0, *(value for s in metrics.classes.values() for value in (s.f1, s.precision, s.recall))])
    rows = [(name, score, forests.class_plot(score, scale, overall.value if overall else None)) for name, score in worst_classes(metrics)]
    return {"classes": rows[:SHOWN_ROWS], "more_classes": rows[SHOWN_ROWS:], "class_axis": forests.axis(scale)}


def worst_classes(metrics: Metrics) -> list[tuple[str, ClassScore]]:
    """Return the classes by F1, the lowest first, also those with too few rows for macro-F1."""
    return sorted(metrics.classes.items(), key=lambda item: (item[1].f1, item[0]))


def _errors(facts: PageFacts) -> dict[str, Any]:
    if facts.candidate is None or not facts.metrics.classes:
        return {"mistakes": (), "pairs": (), "wrong": 0, "matrix": None, "label_count": 0}
    labels, counts = error_analysis.confusion(facts.candidate)
    return {
        "mistakes": error_analysis.worst_mistakes(facts.candidate, facts.texts),
        "pairs": error_analysis.confused_pairs(facts.candidate),
        "wrong": int(counts.sum() - counts.trace()),
        "matrix": confusion_matrix(labels, counts) if 0 < len(labels) <= MOST_CLASSES else None,
        "label_count": len(labels),
    }


def _changes(facts: PageFacts) -> dict[str, Any]:
    champion = facts.run.champion
    if champion is None:
        return {"changes": None, "settings": (), "known_settings": False, "origins": (), "packages": ()}
    known = bool(champion.settings or champion.params)
    before, now = champion.lineage, facts.run.lineage
    old, new = champion.predictions, facts.candidate
    return {
        "changes": error_analysis.changes(new, old, facts.texts) if new and old else None,
        "known_settings": known,
        "settings": _differing_settings(facts, champion) if known else (),
        "origins": _origins(now, champion),
        "packages": error_analysis.differing_settings(before.packages, now.packages, ABSENT) if before else (),
    }


def _differing_settings(facts: PageFacts, champion: ChampionFacts) -> list[tuple[str, str, str]]:
    """Return the differing parameters if the champion's are known, else the differing training settings."""
    trained = facts.training.settings if facts.training else {}
    if champion.params and facts.run.params:
        before = error_analysis.settings_in_force(champion.params, champion.settings)
        pairs = error_analysis.differing_settings(before, error_analysis.settings_in_force(facts.run.params, trained), ABSENT)
    else:
        pairs = error_analysis.differing_settings(champion.settings, trained, ABSENT)
    return [(name, *_distinct_values(before, now)) for name, before, now in pairs]


def _distinct_values(before: object, now: object) -> tuple[str, str]:
    """Format two values, with all digits if rounding would make them look equal."""
    rounded = wording.setting(before), wording.setting(now)
    return rounded if rounded[0] != rounded[1] else (wording.cut(before, 80), wording.cut(now, 80))


def _origins(lineage: Lineage, champion: ChampionFacts) -> list[tuple[str, str | None, str]]:
    """Return the origin of both models: name, the champion's value (None: unknown), the candidate's value."""
    before = champion.lineage
    data = before.data_digest if before else champion.data_digest
    pairs = [
        ("snapshot", data, lineage.data_digest),
        ("base model", before.base_digest if before else None, lineage.base_digest),
        ("git commit", before.git_commit if before else None, lineage.git_commit),
        ("Python", before.python if before else None, lineage.python),
    ]
    return [pair for pair in pairs if pair[1] is not None]


def _data(facts: PageFacts) -> dict[str, Any]:
    profile = facts.profile
    by_split = {label: [split.labels.get(label, 0) for split in profile.splits.values()] for label in profile.labels} if profile else {}
    rows = [(label, counts, sum(counts)) for label, counts in by_split.items()]
    return {
        "account": account(facts),
        "labels": sorted(rows, key=lambda row: (-row[2], row[0])),
        "lengths": charts.token_lengths(profile.tokens) if profile and any(rows for _, rows in profile.tokens.histogram) else None,
    }


def account(facts: PageFacts) -> tuple[int, list[tuple[str, int]], int] | None:
    """Return the input rows, their use, and the number of unaccounted rows (0 in a correct run)."""
    validation, profile = facts.validation, facts.profile
    if profile is None:
        return None
    rows_in = validation.rows_in if validation else profile.rows_in
    parts = [("kept", profile.kept)] + ([("quarantined", validation.quarantined)] if validation else [])
    parts += [
        ("exact duplicates", profile.exact_duplicates),
        ("near-duplicates", profile.near_duplicates),
        ("conflicting", profile.conflicting),
        *profile.pseudo_removed.items(),
    ]
    return rows_in, parts, rows_in - sum(rows for _, rows in parts)


def _search(facts: PageFacts) -> dict[str, Any]:
    metric = facts.best.metric if facts.best else "value"
    importance = sorted(facts.best.importance.items(), key=lambda item: -item[1]) if facts.best else []
    settings = {name for trial in facts.trials for name in trial.params}
    first = [name for name, _ in importance if name in settings]
    names = [*first, *sorted(settings - set(first))]
    varied = any(trial.value is not None and trial.params for trial in facts.trials)
    return {
        "importance": importance,
        "history_plot": charts.trial_history(facts.trials, metric) if varied else None,
        "costs_plot": charts.trial_costs(facts.trials) if varied else None,
        "parallel": charts.parallel_coordinates(facts.trials, metric, names) if varied and len(facts.trials) > 1 else None,
        "varied": names,
    }


def _training(facts: PageFacts) -> dict[str, Any]:
    history = facts.history
    keys = {key for entry in history for key in entry}
    losses = [key for key in ("loss", "eval_loss") if key in keys]
    metric = f"eval_{facts.training.metric}" if facts.training else ""
    metric_keys = [key for key in dict.fromkeys([metric, "eval_macro_f1", "eval_accuracy"]) if key in keys]
    best = facts.training.best_step if facts.training else None
    return {
        "loss_plot": charts.training_curves(history, losses, "loss") if losses else None,
        "losses": losses,
        "metric_plot": charts.training_curves(history, metric_keys, "validation score", best) if metric_keys else None,
        "metric_keys": metric_keys,
    }
