"""Guesses for files as strangers bring them: by values, by usual names, with choices, and what the test split can decide."""

import json
from pathlib import Path

import pytest

from components.core.errors import BadParams, BadSource
from flows.project.guessing import Guess, Wanted, guess_columns
from flows.project.init_params import write_params
from flows.project.params import read_params
from tests.support import first_contact

WORDS = ["router", "cable", "signal", "wifi", "slow", "offline", "speed", "modem", "outage", "invoice", "refund", "charge", "card"]


def sentence(number: int, length: int = 6) -> str:
    return " ".join(WORDS[(number * (step + 3) + step * step) % len(WORDS)] for step in range(length)) + f" {number}"


def csv(path: Path, header: str, *columns: list[object], name: str = "d.csv") -> Path:
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (path / name).write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path / name


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    (path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path / "d.jsonl"


N = 120
TEXTS: list[object] = [sentence(number) for number in range(N)]
OTHERS: list[object] = [sentence(number, 4) for number in range(N, 2 * N)]


def kind(guess: Guess) -> str:
    return str(guess.shape.options.get("kind", "single"))


@pytest.mark.parametrize(
    ("name", "task", "options", "columns"),
    [
        ("tickets", "text_classification", {}, {"text": "message", "label": "category", "group": "customer"}),
        ("feedback_tags", "text_classification", {"kind": "multi"}, {"text": "feedback", "label": "tags"}),
        ("ner", "token_classification", {}, {"tokens": "tokens", "tags": "ner_tags"}),
        ("reviews", "text_classification", {"kind": "ordinal"}, {"text": "review", "label": "stars"}),
    ],
)
def test_files_of_strangers_are_guessed(tmp_path: Path, name: str, task: str, options: dict[str, str], columns: dict[str, str]) -> None:
    guess = write_params(first_contact.FILES[name](tmp_path), tmp_path / "params.yaml", name=None, force=False)

    params = read_params(tmp_path / "params.yaml")
    assert (params.task, params.task_options.fields, guess.columns) == (task, options, columns)


@pytest.mark.parametrize("tags", ["ner_tags", "labels", "pos", "etiketten"])
def test_tags_are_found_under_any_name(tmp_path: Path, tags: str) -> None:
    guess = guess_columns(first_contact.tagged_tokens(tmp_path, tags))

    assert (guess.task, guess.columns) == ("token_classification", {"tokens": "tokens", "tags": tags})


@pytest.mark.parametrize(
    ("tags", "scheme"), [(["B-X", "I-X", "O"], None), (["S-X", "O", "O"], "BIOES"), (["NOUN", "VERB", "DET"], "plain")]
)
def test_scheme_of_tags_is_guessed(tmp_path: Path, tags: list[str], scheme: str | None) -> None:
    rows: list[dict[str, object]] = [{"words": [f"w{number}", "is", "here"], "tags": tags} for number in range(N)]

    assert guess_columns(jsonl(tmp_path, rows)).shape.options.get("scheme") == scheme


def test_tags_that_are_numbers_are_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"tokens": [f"w{number}", "is"], "ner_tags": [number % 3, 0]} for number in range(N)]

    with pytest.raises(BadSource, match=r"tags in 'ner_tags' are numbers.*dataset_info"):
        guess_columns(jsonl(tmp_path, rows))


@pytest.mark.parametrize(("separator", "option"), [(";", None), ("|", "|"), (", ", ",")])
def test_separated_labels_are_several(tmp_path: Path, separator: str, option: str | None) -> None:
    cells = [separator.join(["red", "green", "blue"][: 1 + number % 3]) for number in range(N)]
    path = jsonl(tmp_path, [{"text": text, "colours": cell} for text, cell in zip(TEXTS, cells, strict=True)])

    guess = guess_columns(path)
    assert kind(guess) == "multi"
    assert guess.shape.options.get("separator") == option
    assert guess.classes == 3


def test_lists_of_labels_are_several(tmp_path: Path) -> None:
    guess = guess_columns(jsonl(tmp_path, [{"text": text, "topics": [["a"], ["a", "b"], []][i % 3]} for i, text in enumerate(TEXTS)]))

    assert (kind(guess), guess.columns["label"]) == ("multi", "topics")


def test_commas_in_names_are_no_separators(tmp_path: Path) -> None:
    cities = ["Paris, France", "Rome, Italy", "Oslo, Norway"]

    assert kind(guess_columns(jsonl(tmp_path, [{"text": t, "label": cities[i % 3]} for i, t in enumerate(TEXTS)]))) == "single"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("rating", [1, 2, 3, 4, 5], "ordinal"),
        ("stars", [1, 2, 3], "ordinal"),
        ("label", [0, 1, 2, 3], "single"),  # numbered classes
        ("label", [1, 2, 3, 4, 5], "ordinal"),
        ("score", [0.1, 0.25, 0.5, 3.75], "regression"),
    ],
)
def test_numbers_are_classes_levels_or_values(tmp_path: Path, name: str, values: list[float], expected: str) -> None:
    guess = guess_columns(csv(tmp_path, f"text,{name}", TEXTS, [values[number % len(values)] for number in range(N)]))

    assert kind(guess) == expected


@pytest.mark.parametrize(
    ("names", "label", "expected"),
    [
        (("sentence1", "sentence2"), "label", "single"),
        (("premise", "hypothesis"), "label", "single"),
        (("question1", "question2"), "is_duplicate", "single"),
        (("Text A", "Text B"), "label", "single"),
        (("sentence1", "sentence2"), "score", "regression"),
    ],
)
def test_two_texts_are_a_pair(tmp_path: Path, names: tuple[str, str], label: str, expected: str) -> None:
    values: list[object] = [number % 2 if expected == "single" else (number % 50) / 10 for number in range(N)]
    guess = guess_columns(csv(tmp_path, f"{names[0]},{names[1]},{label}", TEXTS, OTHERS, values))

    assert guess.columns == {"text_a": names[0], "text_b": names[1], "label": label}
    assert (guess.shape.options["pair"], kind(guess)) == (True, expected)


def test_pairs_without_labels_are_contrastive(tmp_path: Path) -> None:
    guess = guess_columns(csv(tmp_path, "sentence1,sentence2", TEXTS, OTHERS))

    assert (guess.task, guess.columns) == ("contrastive", {"anchor": "sentence1", "positive": "sentence2"})


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("article", "highlights"), "sequence_to_sequence"),
        (("document", "summary"), "sequence_to_sequence"),
        (("Question", "Answer"), "causal_lm"),
        (("instruction", "output"), "causal_lm"),
    ],
)
def test_answers_that_are_texts_are_generated(tmp_path: Path, names: tuple[str, str], task: str) -> None:
    guess = guess_columns(csv(tmp_path, ",".join(names), TEXTS, OTHERS))

    assert (guess.task, tuple(guess.columns.values())) == (task, names)


def test_missing_hub_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    guess = guess_columns(csv(tmp_path, "article,highlights", TEXTS, OTHERS))

    assert any("not in the local cache: run with HF_HUB_OFFLINE=0" in note for note in guess.notes)


def test_other_columns_and_tasks_are_shown_with_counts(tmp_path: Path) -> None:
    guess = guess_columns(first_contact.reviews(tmp_path))
    shown = "\n".join(guess.others)

    assert "--label verified: 2 labels: " in shown
    assert "--task text_classification: 5 labels: " in shown
    assert guess.labels == ("stars",)  # nobody is asked about a fact such as `verified`


def test_likely_columns_are_a_question(tmp_path: Path) -> None:
    colours, sizes = [["red", "blue", "green"][i % 3] for i in range(N)], [["big", "small"][i % 2] for i in range(N)]
    asked: list[Guess] = []

    def ask(guess: Guess) -> str:
        asked.append(guess)
        return "size"

    path = csv(tmp_path, "text,colour,size", TEXTS, list(colours), list(sizes))
    guess = write_params(path, tmp_path / "params.yaml", name=None, force=False, ask=ask)
    assert guess.columns["label"] == "size"
    assert set(asked[0].labels) == {"colour", "size"}


@pytest.mark.parametrize(
    ("wanted", "task", "columns"),
    [
        (Wanted(label="verified"), "text_classification", {"text": "review", "label": "verified"}),
        (Wanted(task="regression"), "text_classification", {"text": "review", "label": "stars"}),
        (Wanted(task="sequence_to_sequence", text=("review",), label="verified"), "sequence_to_sequence", {"source": "review"}),
        (Wanted(task="masked_lm"), "masked_lm", {"text": "review"}),
        (Wanted(group="verified"), "text_classification", {"text": "review", "label": "stars", "group": "verified"}),
    ],
)
def test_user_chooses_columns_and_task(tmp_path: Path, wanted: Wanted, task: str, columns: dict[str, str]) -> None:
    guess = write_params(first_contact.reviews(tmp_path), tmp_path / "params.yaml", name=None, force=False, wanted=wanted)

    assert guess.task == task
    assert guess.columns.items() >= columns.items()
    if wanted.task == "regression":
        assert kind(guess) == "regression"
    assert read_params(tmp_path / "params.yaml").task == task


@pytest.mark.parametrize(("wanted", "message"), [(Wanted(label="star"), "did you mean 'stars'"), (Wanted(task="ordinl"), "'ordinal'")])
def test_unknown_choice_is_refused(tmp_path: Path, wanted: Wanted, message: str) -> None:
    with pytest.raises(BadParams, match=message):
        guess_columns(first_contact.reviews(tmp_path), wanted)


def test_nothing_fits_describes_each_column(tmp_path: Path) -> None:
    path = csv(tmp_path, "what,when", TEXTS, list(range(N)))

    with pytest.raises(BadSource, match=r"'what': texts of 7 words.*choose with --label COLUMN"):
        guess_columns(path, Wanted(task="token_classification"))


def test_columns_of_zeros_and_ones_are_refused(tmp_path: Path) -> None:
    flags = [[int(number % step == 0) for number in range(N)] for step in (2, 3, 5)]
    path = csv(tmp_path, "comment_text,toxic,insult,threat", TEXTS, *flags)

    with pytest.raises(BadSource, match=r"'toxic', 'insult', 'threat' are 0 or 1.*retune convert.*--label toxic"):
        guess_columns(path)
    assert guess_columns(path, Wanted(label="toxic")).columns["label"] == "toxic"


def test_german_table_of_excel_is_guessed(tmp_path: Path) -> None:
    rows = "".join(f"Die Lieferung {sentence(number)} kam spät für müde Gäste;{['gut', 'schlecht'][number % 2]}\r\n" for number in range(N))
    (tmp_path / "d.csv").write_bytes(f"Rückmeldung;Urteil\r\n{rows}".encode("cp1252"))
    guess = write_params(tmp_path / "d.csv", tmp_path / "params.yaml", name=None, force=False)

    assert guess.columns == {"text": "Rückmeldung", "label": "Urteil"}
    snapshot = read_params(tmp_path / "params.yaml").snapshot
    assert (snapshot.encoding, snapshot.delimiter) == ("cp1252", ";")
    assert any("read as cp1252" in note for note in guess.notes)


def test_text_in_another_script_is_not_taken_for_latin(tmp_path: Path) -> None:
    rows = "".join(f"路由器坏了{number}号,{'好坏'[number % 2]}\n" for number in range(N))
    (tmp_path / "d.csv").write_bytes(f"text,label\n{rows}".encode("gb18030"))

    with pytest.raises(BadSource, match="is not utf-8"):
        guess_columns(tmp_path / "d.csv")


def test_file_without_a_header_is_detected(tmp_path: Path) -> None:
    labels: list[object] = [["good", "bad"][number % 2] for number in range(N)]
    guess = write_params(csv(tmp_path, f"{TEXTS[0]},{labels[0]}", TEXTS[1:], labels[1:]), tmp_path / "p.yaml", name=None, force=False)

    assert guess.columns == {"text": "column_1", "label": "column_2"}
    assert read_params(tmp_path / "p.yaml").snapshot.header is False
    assert any("snapshot.header: false" in note for note in guess.notes)


def test_groups_raise_the_test_share(tmp_path: Path) -> None:
    guess = guess_columns(first_contact.tickets(tmp_path))

    assert guess.test_share > 0.2
    assert any("test groups, and the gates need 50" in note for note in guess.notes)


def test_too_few_groups_are_reported(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,label,customer", TEXTS, ["ab"[i % 2] for i in range(N)], [f"c{i % 30}" for i in range(N)])
    guess = guess_columns(path)

    assert any("an interval needs at least 50" in note and "it takes about 263 groups in the data (now 30)" in note for note in guess.notes)


def test_rare_labels_are_reported(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,label", TEXTS, ["rare" if number < 5 else "ab"[number % 2] for number in range(N)])

    assert any("1 of 3 labels have fewer than 20 rows" in note and "'rare' (5)" in note for note in guess_columns(path).notes)


def test_missing_file_is_reported_as_missing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    (tmp_path / "rows.csv").touch()

    with pytest.raises(BadSource, match=r"row\.csv: no such file or folder; did you mean 'rows\.csv'"):
        write_params(tmp_path / "row.csv", tmp_path / "params.yaml", name=None, force=False)
