"""`retune init`: guessed columns, and the written params.yaml."""

from pathlib import Path

import pytest
import yaml

from components.artifacts.verdict import Role
from components.core.errors import BadParams, BadSource
from flows.project.guessing import guess_columns
from flows.project.init_params import write_params
from flows.project.params import read_params


def write_csv(path: Path, header: str, separator: str = ",", labels: tuple[str, ...] = ("good", "bad", "so so")) -> Path:
    lines = [separator.join([f"the review number {i} says this", labels[i % len(labels)], f"c{i % 7}", str(i)]) for i in range(60)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_columns_are_guessed_by_content(tmp_path: Path) -> None:
    guess = guess_columns(write_csv(tmp_path / "d.csv", "what,mood,customer_id,id"))

    assert guess.columns == {"text": "what", "label": "mood", "id": "id", "group": "customer_id"}
    assert guess.classes == 3


def test_semicolon_delimiter_is_detected(tmp_path: Path) -> None:
    guess = guess_columns(write_csv(tmp_path / "d.csv", "text;label;customer;id", separator=";"))

    assert guess.settings.delimiter == ";"
    assert guess.columns["text"] == "text"


def test_texts_without_spaces_are_guessed(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(
        "评论,情感\n" + "".join(f"第{i}条评论说这个东西非常好用{'质量不错' * 8},{'好坏'[i % 2]}\n" for i in range(60)), encoding="utf-8"
    )
    guess = guess_columns(path)

    assert guess.columns == {"text": "评论", "label": "情感"}
    assert guess.max_length == 128


def test_file_without_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text\n" + "".join(f"some words number {i}\n" for i in range(30)), encoding="utf-8")

    with pytest.raises(BadSource, match="no column looks like labels"):
        guess_columns(path)


def test_uri_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="s3:// is a URI, expected a file"):
        write_params(Path("s3://bucket/tickets"), tmp_path / "params.yaml", name=None, force=False)


@pytest.mark.parametrize(("labels", "numeric"), [(("0", "1"), "allow"), (("good", "bad"), "refuse")])
def test_written_params_are_valid(tmp_path: Path, labels: tuple[str, ...], numeric: str) -> None:
    write_csv(tmp_path / "my data.csv", "what,mood,customer,id", labels=labels)
    write_params(tmp_path / "my data.csv", tmp_path / "params.yaml", name=None, force=False)

    params = read_params(tmp_path / "params.yaml")
    assert params.name == "my-data"
    assert params.snapshot.source == "my data.csv"
    assert params.validation.numeric_labels == numeric


def test_written_params_match_the_shipped_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "d.csv", "what,mood,customer,id")
    write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False)
    written, shipped = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (tmp_path / "params.yaml", Path("params.yaml")))

    own = {"source", "columns", "max_length", "numeric_labels", "name", "minutes"}
    flat = [{(s, k): v for s, section in p.items() if isinstance(section, dict) for k, v in section.items()} for p in (written, shipped)]
    for settings in flat:  # the example has own columns and cases
        settings["gates", "slices"] = {**settings["gates", "slices"], "columns": []}
        settings["gates", "behaviour"] = {**settings["gates", "behaviour"], "cases": ""}
    assert {k: v for k, v in flat[0].items() if k[1] not in own} == {k: v for k, v in flat[1].items() if k[1] not in own and k in flat[0]}


@pytest.mark.parametrize(("strategy", "tuned"), [("auto", ()), ("search", ("batch_size", "learning_rate")), ("none", ())])
def test_strategy_selects_the_sections_tune_and_train(tmp_path: Path, strategy: str, tuned: tuple[str, ...]) -> None:
    write_csv(tmp_path / "d.csv", "what,mood,customer,id")
    write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False, strategy=strategy)

    params = read_params(tmp_path / "params.yaml")
    assert (params.tune.strategy, params.train.tuned) == (strategy, tuned)
    assert bool(params.tune.space) == (strategy == "search")


@pytest.mark.parametrize("strategy", ["auto", "search", "none"])
def test_comments_fit_the_strategy(tmp_path: Path, strategy: str) -> None:
    write_csv(tmp_path / "d.csv", "what,mood,customer,id")
    write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False, strategy=strategy)
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")

    assert ("(Optuna)" in text, "or `tuned` for the result" in text) == (strategy == "search",) * 2
    assert "base model, method" not in text


def test_auto_states_nothing_that_it_chooses(tmp_path: Path) -> None:
    write_csv(tmp_path / "d.csv", "what,mood,customer,id")
    write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False)

    written = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert written["tune"] == {"strategy": "auto", "minutes": 15, "metric": "macro_f1"}
    assert set(written["train"]) == {"metric", "precision", "threads", "seed"}


def test_minutes_are_the_budget(tmp_path: Path) -> None:
    write_csv(tmp_path / "d.csv", "what,mood,customer,id")
    write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False, minutes=2.5)

    assert read_params(tmp_path / "params.yaml").tune.minutes == 2.5
    with pytest.raises(BadParams, match="--strategy none has none"):
        write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=True, strategy="none", minutes=2.5)


def test_existing_file_is_replaced_with_force_only(tmp_path: Path) -> None:
    write_csv(tmp_path / "d.csv", "text,label,customer,id")
    (tmp_path / "params.yaml").write_text("name: mine\n", encoding="utf-8")

    with pytest.raises(BadParams, match="--force"):
        write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False)
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == "name: mine\n"


ROWS = {
    "question_answering": '{"question": "who?", "context": "Ada did.", "answers": {"text": ["Ada"], "answer_start": [0]}}',
    "token_classification": '{"tokens": ["Ada", "left"], "tags": ["B-PER", "O"]}',
    "causal_lm": '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}',
    "sequence_to_sequence": '{"source": "a dog", "target": "ein Hund"}',
    "contrastive": '{"anchor": "a dog", "positive": "one dog"}',
    "text_classification": '{"text_a": "a dog", "text_b": "one dog", "label": "same"}',
}


@pytest.mark.parametrize("task", ROWS)
def test_column_names_select_the_task(tmp_path: Path, task: str) -> None:
    row = ROWS[task]
    (tmp_path / "d.jsonl").write_text(f"{row}\n" * 30, encoding="utf-8")
    guess = write_params(tmp_path / "d.jsonl", tmp_path / "params.yaml", name=None, force=False)

    params = read_params(tmp_path / "params.yaml")
    assert params.task == task
    assert set(params.made_task.columns) <= set(guess.columns)
    assert (params.gates.baseline.against, params.gates.baseline.role) == ("best", Role.REQUIRED)
    assert params.gates.floor.role is Role.OFF  # no threshold fits every table
    assert task.replace("_", " ") in str(guess)
