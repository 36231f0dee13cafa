"""The model card: Hugging Face's format, recorded facts only, and escaped texts."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import NotFound
from components.report import CARD, CARD_PAGE, ChampionFacts, Run, card, write_card
from components.report.wording import THIN
from tests.support.finished import estimate
from tests.support.judged import judged
from tests.support.reported import EVIL, Tree, answers, finished_run, lineage, verdict, write_data, write_metrics, write_models
from tests.support.reported import write_predictions as predict


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def write(workspace: Path, **changes: object) -> tuple[str, str]:
    arguments = {"lineage": lineage(), "verdict": judged(), "version": "4"} | changes
    paths = write_card(workspace, workspace / "reports/card", Run(**arguments))  # type: ignore[arg-type]
    return paths[0].read_text(encoding="utf-8"), paths[1].read_text(encoding="utf-8")


def test_hub_reader_reads_the_numbers(workspace: Path) -> None:
    text, _ = write(workspace)
    read = ModelCard(text)

    assert read.data.model_name == "diagnosis"
    assert read.data.library_name == "transformers"
    assert {(result.metric_type, result.metric_name, result.metric_value) for result in read.data.eval_results} == {
        ("f1", "macro-F1", 0.7512),
        ("accuracy", "accuracy", 0.8),
    }
    assert read.data.eval_results[0].metric_args == {"low": 0.7312, "high": 0.7712, "confidence": 0.95, "n": 20}
    assert read.data.eval_results[0].dataset_revision == "d" * 64


def test_card_lists_gates_that_are_not_applicable(workspace: Path) -> None:
    gates = (*judged().gates, GateResult.not_applicable("fairness", "no column is named"))
    text, _ = write(workspace, verdict=judged().model_copy(update={"gates": gates}))

    assert "Not applicable, because there was nothing to judge: fairness (no column is named)" in text
    assert "| fairness | required | NOT APPLICABLE |" in text


def test_card_states_what_its_owner_says(workspace: Path) -> None:
    stated = {
        "licence": "Apache-2.0",
        "languages": ["en", "de"],
        "owner": "claims team",
        "intended_use": "Routes mail.",
        "risk_class": "limited",
    }
    text, page = write(workspace, params={"card": stated})
    read = ModelCard(text)

    assert (read.data.license, read.data.language) == ("apache-2.0", ["en", "de"])
    for fact in ("**Licence**: Apache-2.0", "**Languages**: en, de", "**Owner**: claims team", "**Risk class**: limited", "Routes mail."):
        assert fact in text
    assert "claims team" in page


def test_card_contains_purpose_limits_and_origin(workspace: Path) -> None:
    champion = ChampionFacts("3", {"macro_f1": estimate(0.73)}, {"macro_f1": estimate(0.0212)})
    text, page = write(workspace, verdict=judged(Outcome.FAIL), champion=champion, lineage=lineage(dirty=2))

    for part in ("Model details", "Intended use", "Limits", "Training data", "Evaluation", "Verdict and gates", "Slices", "Lineage"):
        assert f"\n## {part}" in text, part
        assert part in page, part
    for fact in (
        "minus champion 3",
        "+0.021 \\[+0.001 to +0.041\\]",
        "Rejected: label is Diseases of the blood",
        "Not examined, because the gate is off: fairness",
        "2 candidates were judged on this test set",
        "Weakest classes: beta (F1 0.790",
        "2 files differed from the commit",
        f"10{THIN}182 rows",
        "retune rebuild diagnosis 4",
    ):
        assert fact in text, fact


def test_unrecorded_facts_are_unknown(workspace: Path) -> None:
    text, _ = write(workspace)

    assert "**Languages**: unknown" in text
    assert "**Licence**: unknown" in text
    assert ModelCard(text).data.language is None
    assert ModelCard(text).data.license == "unknown"


def test_base_model_is_set_only_for_hub_models(workspace: Path) -> None:
    from_hub = lineage().model_copy(update={"base_source": f"sentence-transformers/all-MiniLM-L6-v2@{'a' * 40}"})

    assert ModelCard(write(workspace)[0]).data.base_model is None
    assert ModelCard(write(workspace, lineage=from_hub)[0]).data.base_model == "sentence-transformers/all-MiniLM-L6-v2"


def test_card_needs_no_network(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr("socket.socket.connect", lambda _, address: opened.append(address))

    text, page = write(workspace)

    assert text
    assert page
    assert opened == []


def test_card_page_is_self_contained(workspace: Path) -> None:
    text, page = write(workspace)
    root = Tree(page.replace("<hr>", "")).root

    assert not root.all("script", "img", "iframe")
    assert "http://" not in page
    assert "https://" not in page
    assert len(root.all("table")) == sum(line.startswith("|:--") for line in text.splitlines()) > 5
    assert "model-index" not in page


def test_texts_from_data_are_escaped(tmp_path: Path) -> None:
    evil = EVIL + "\n\n# A heading | a cell [a link](javascript:alert(1)) ![a picture](x) `code` *bold* ---"
    labels = (evil, evil + "2")
    write_metrics(tmp_path, labels)
    predict(tmp_path, answers(labels, wrong={1, 2}))
    write_data(tmp_path, labels, evil)
    write_models(tmp_path, name=evil)
    origin = lineage().model_copy(update={"model": evil, "base_source": evil, "git_commit": evil})
    gates = verdict(reason=evil, gate=evil, metric=evil)

    text, page = write(tmp_path, lineage=origin, verdict=gates, version=evil)

    root = Tree(page.replace("<hr>", "")).root
    assert not root.all("script", "img", "a", "em")
    assert next(node.words for node in root.all("h1")).startswith("<script>")
    assert not any("A heading" in node.words for node in root.all("h2", "h3")[1:])
    assert all(len(row.all("td")) == len(table.all("th")) for table in root.all("table") for row in table.all("tbody")[0].all("tr"))
    assert "\u202e" not in text
    assert ModelCard(text).data.model_name


def test_card_is_reproducible(workspace: Path) -> None:
    assert write(workspace) == write(workspace)
    assert sorted(path.name for path in (workspace / "reports/card").iterdir()) == sorted([CARD, CARD_PAGE])


def test_card_with_metrics_only(tmp_path: Path) -> None:
    write_metrics(tmp_path, ("alpha", "beta"))
    text, _ = write(tmp_path, verdict=verdict().model_copy(update={"gates": ()}), version=None)

    assert "No gate was run" in text
    assert "No training record is available" in text
    assert "git checkout 4ab115000000" in text


def test_card_needs_metrics(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"metrics\.json is missing"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gates.floor.at_least", "gates.floor.at_least"),
        ("_a_ *b*", "\\_a\\_ \\*b\\*"),
        ("- a", "\\- a"),
        ("12. a", "12\\. a"),
        ("-0.02", "-0.02"),
        ("a|b\n# c", "a\\|b \\# c"),
    ],
)
def test_only_special_markdown_is_escaped(text: str, shown: str) -> None:
    assert card.escaped(text) == shown
