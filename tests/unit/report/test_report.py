from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.artifacts.metrics import Metrics
from components.artifacts.profile import Profile
from components.artifacts.training import Training
from components.artifacts.verdict import Outcome
from components.core.errors import NotFound
from components.report import ChampionFacts, Run, write_report
from tests.support.finished import estimate
from tests.support.reported import (
    BEFORE,
    EVIL,
    Tree,
    answers,
    finished_run,
    lineage,
    page,
    section,
    verdict,
    write_data,
    write_metrics,
    write_models,
    write_predictions,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def test_sections_are_in_order(workspace: Path) -> None:
    root = page(workspace)

    order = [*BEFORE, "calibration", "data", "search", "training", "cost", "lineage"]
    assert [node.attributes["id"] for node in root.all("section")] == order
    links = [link.attributes["href"] for nav in root.all("nav") for link in nav.all("a")]
    assert links == [f"#{name}" for name in order[1:]]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_verdict_contains_outcome_and_reason(workspace: Path, outcome: Outcome) -> None:
    band = section(page(workspace, verdict=verdict(outcome, "because of the floor")), "verdict")

    assert outcome.value in band.words
    assert "because of the floor" in band.words


def test_figures_have_captions_and_drawings_have_labels(workspace: Path) -> None:
    root = page(workspace, seconds={"train": 12.0}, champion=ChampionFacts("3", {"macro_f1": estimate(0.73)}))

    figures = root.all("figure")
    assert len(figures) >= 12
    assert all(len(figure.all("figcaption")) == 1 and figure.all("figcaption")[0].words for figure in figures)
    drawings = [svg for svg in root.all("svg") if not svg.inside("svg")]
    assert len(drawings) > 30
    assert all(svg.attributes.get("aria-hidden") == "true" or svg.attributes.get("aria-label") for svg in drawings)


def test_page_is_self_contained_and_forbids_scripts(workspace: Path) -> None:
    html = write_report(workspace, workspace / "reports/index.html", Run(lineage(), verdict())).read_text(encoding="utf-8")

    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html
    root = Tree(html).root
    assert not root.all("script", "iframe", "object", "img")
    assert [node.attributes["href"] for node in root.all("link")] == ["data:,"]
    policies = [
        str(node.attributes["content"]) for node in root.all("meta") if node.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies[0].startswith("default-src 'none'")


def test_texts_from_data_are_escaped(tmp_path: Path) -> None:
    labels = (EVIL, EVIL + "2")
    write_metrics(tmp_path, labels)
    write_predictions(tmp_path, answers(labels, wrong={1, 2}))
    write_data(tmp_path, labels, EVIL, column=EVIL)
    write_models(tmp_path, name=EVIL)
    champion = ChampionFacts(EVIL, {"macro_f1": estimate(0.73)}, {}, answers(labels, wrong={2, 5}), {EVIL: EVIL}, EVIL)
    changes = {
        "version": EVIL,
        "champion": champion,
        "seconds": {EVIL: 3.0},
        "verdict": verdict(reason=EVIL, gate=EVIL, metric=EVIL, method=EVIL),
    }

    root = page(tmp_path, **changes)

    assert not root.all("script")
    html = (tmp_path / "reports/index.html").read_text(encoding="utf-8")
    assert "\x07" not in html
    assert "\u202e" not in html
    for name in ("verdict", "gates", "classes", "confusions", "errors", "changes", "data", "search", "training", "cost"):
        assert "<script>" in section(root, name).words, name
    assert any("<script>" in node.words for svg in root.all("svg") for node in svg.all("text"))


def test_numbers_equal_those_of_the_artifacts(workspace: Path) -> None:
    root = page(workspace, version="4", seconds={"train": 192.4, "tune": 60.0}, made_at=datetime(2026, 11, 21, 23, 41, tzinfo=UTC))

    assert "0.751" in section(root, "verdict").words
    assert "0.731–0.771" in section(root, "gates").words
    assert "+0.064" in section(root, "scores").words
    assert "3 of 20 answers are wrong" in section(root, "errors").words
    assert (
        "10 182 in = 10 118 kept + 11 quarantined + 44 exact duplicates + 0 near-duplicates + 9 conflicting" in section(root, "data").words
    )
    assert "All rows are accounted for" in section(root, "data").words
    assert "3 min 12 s" in section(root, "cost").words
    assert "0.131" in section(root, "calibration").words
    assert "2026-11-21 23:41 UTC" in root.words


def test_best_baseline_on_validation_is_named(workspace: Path) -> None:
    folder = workspace / "reports/evaluation"
    Metrics.read(folder).model_copy(update={"validation": {"tfidf": {"macro_f1": 0.6}, "majority": {"macro_f1": 0.1}}}).write(folder)

    assert "On the validation split, the best baseline is TF-IDF" in section(page(workspace), "scores").words


def test_probe_is_not_compared_with_the_probe(workspace: Path) -> None:
    folder = workspace / "reports/evaluation"
    metrics = Metrics.read(folder)
    validation = {"tfidf": {"macro_f1": 0.6}, "majority": {"macro_f1": 0.1}, "probe": {"macro_f1": 0.7}}
    metrics.model_copy(update={"validation": validation, "method": "probe"}).write(folder)

    assert "On the validation split, the best baseline is TF-IDF" in section(page(workspace), "scores").words


def test_probe_was_not_finished_by_an_earlier_process(workspace: Path) -> None:
    folder = workspace / "models/trained"
    Training.read(folder).model_copy(update={"steps": 0, "resumed": 0}).write(folder)

    assert "An earlier process" not in section(page(workspace), "training").words


def test_doubtful_estimate_is_marked(workspace: Path) -> None:
    doubtful = estimate(0.02).model_copy(update={"doubt": "12 groups are too few"})
    root = page(workspace, champion=ChampionFacts("3", {"macro_f1": estimate(0.73)}, {"macro_f1": doubtful}))

    assert section(root, "scores").words.count("in doubt: 12 groups are too few") == 1


def test_surest_error_and_worst_class_come_first(workspace: Path) -> None:
    root = page(workspace)

    first = section(root, "errors").all("li")[0]
    assert "0.890" in first.words
    assert "r01" in first.words
    assert section(root, "classes").all("tbody")[0].all("tr")[0].words.startswith("beta")


def test_unaccounted_rows_are_reported(workspace: Path) -> None:
    profile = Profile.read(workspace / "data/prepared")
    profile.model_copy(update={"kept": profile.kept - 7}).write(workspace / "data/prepared")

    assert "7 rows are unaccounted for" in section(page(workspace), "data").words


def test_page_counts_fixed_and_broken_answers(workspace: Path) -> None:
    champion = ChampionFacts(
        "3", {"macro_f1": estimate(0.73)}, {"macro_f1": estimate(0.0212)}, answers(("alpha", "beta"), wrong={2, 3, 4, 5})
    )
    changes = section(page(workspace, champion=champion), "changes")

    assert "fixed 2 only the candidate is correct" in changes.words
    assert "broken 1 only the champion is correct" in changes.words
    assert "both correct 15" in changes.words


def test_differences_to_the_champion_are_listed(workspace: Path) -> None:
    champion = ChampionFacts("3", {}, settings={"epochs": 3, "learning_rate": 0.0002, "warmup": 0.1}, data_digest="e" * 64)
    changes = section(page(workspace, champion=champion), "changes")

    assert [row.words for row in changes.all("tbody")[0].all("tr")] == ["learning_rate 0.0002 0.001", "warmup 0.1 not set"]
    assert "snapshot eeeeeeeeeeee dddddddddddd changed" in changes.words
    assert "cannot be compared one by one" in changes.words


def test_missing_champion_search_and_timings(workspace: Path) -> None:
    for file in ("models/tuned/best.json", "models/tuned/trials.parquet"):
        (workspace / file).unlink()
    root = page(workspace)

    assert "There is no champion yet" in section(root, "changes").words
    assert "No search" in section(root, "search").words
    assert "No times were recorded" in section(root, "cost").words


def test_page_with_metrics_only(tmp_path: Path) -> None:
    write_metrics(tmp_path, ("alpha", "beta"))
    root = page(tmp_path, verdict=verdict().model_copy(update={"gates": ()}))

    assert len(root.all("section")) == 13
    assert "No gate was run" in section(root, "gates").words
    assert "dvc repro preprocess" in section(root, "data").words


def test_candidate_without_errors(workspace: Path) -> None:
    write_predictions(workspace, answers(("alpha", "beta"), wrong=set()))
    root = page(workspace)

    assert "every test row is answered correctly" in section(root, "errors").words


def test_report_needs_metrics(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"metrics\.json is missing"):
        page(tmp_path)
    assert not (tmp_path / "reports/index.html").exists()


def test_uncommitted_files_are_a_warning(workspace: Path) -> None:
    assert "3 files were changed and not committed" in section(page(workspace, lineage=lineage(dirty=3)), "lineage").words


def test_page_is_replaced_without_a_partial_file(workspace: Path) -> None:
    page(workspace)
    page(workspace, verdict=verdict(Outcome.FAIL, "now it fails"))

    assert sorted(path.name for path in (workspace / "reports").iterdir()) == ["evaluation", "index.html"]
    assert "now it fails" in (workspace / "reports/index.html").read_text(encoding="utf-8")
