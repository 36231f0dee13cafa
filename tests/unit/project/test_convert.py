"""`retune convert`: files of other formats become rows that `retune init` guesses; `init` names the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.core.errors import BadParams, BadSource
from flows.cli import app
from flows.project.convert import convert
from flows.project.guessing import guess_columns

N = 60


def conll(path: Path) -> Path:
    sentences = [f"Ada{number} NNP B-NP B-PER\nlives VBZ B-VP O\nin IN B-PP O\nParis NNP B-NP B-LOC\n" for number in range(N)]
    (path / "train.txt").write_text("-DOCSTART- -X- -X- O\n\n" + "\n".join(sentences), encoding="utf-8")
    return path / "train.txt"


def iob1(path: Path) -> Path:
    (path / "train.conll").write_text("\n".join(f"Ada{number} I-PER\nleft O\n" for number in range(N)), encoding="utf-8")
    return path / "train.conll"


def conllu(path: Path) -> Path:
    words = [("dogs", "NOUN"), ("bark", "VERB"), ("loudly", "ADV")]
    block = "".join(f"{i}\t{word}\t_\t{tag}\t_\t_\t0\t_\t_\t_\n" for i, (word, tag) in enumerate(words, start=1))
    (path / "train.conllu").write_text("\n".join(f"# sent_id = {number}\n{block}" for number in range(N)), encoding="utf-8")
    return path / "train.conllu"


def squad(path: Path) -> Path:
    paragraphs = [
        {
            "context": f"Ada number {number} wrote it.",
            "qas": [{"id": f"q{number}", "question": "Who wrote it?", "answers": [{"text": "Ada", "answer_start": 0}]}],
        }
        for number in range(N)
    ]
    return dump(path / "train.json", {"version": "1.1", "data": [{"title": "Ada", "paragraphs": paragraphs}]})


def label_studio(path: Path, value: Callable[[int], dict[str, Any]]) -> Path:
    tasks = [
        {"id": number, "data": {"text": f"the router number {number} broke"}, "annotations": [{"result": [{"value": value(number)}]}]}
        for number in range(N)
    ]
    return dump(path / "export.json", tasks)


def class_folders(path: Path) -> Path:
    for number in range(N):
        folder = path / "reviews/train" / ("pos", "neg")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(f"a review of film {number}\nin two lines", encoding="utf-8")
    return path / "reviews"


def flags(path: Path) -> Path:
    rows = [f"the comment number {number},{int(number % 2 == 0)},{int(number % 3 == 0)}" for number in range(N)]
    (path / "toxic.csv").write_text("\n".join(["comment_text,toxic,insult", *rows, ""]), encoding="utf-8")
    return path / "toxic.csv"


def fasttext(path: Path) -> Path:
    lines = [f"__label__{'ab'[number % 2]} the words of text {number}" for number in range(N)]
    (path / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    return path / "train.txt"


def by_columns(path: Path) -> Path:
    rows = range(N)
    return dump(path / "frame.json", {"text": {str(i): f"the text number {i}" for i in rows}, "label": {str(i): "ab"[i % 2] for i in rows}})


def inside_an_object(path: Path) -> Path:
    return dump(path / "rows.json", {"version": 1, "examples": [{"text": f"the text number {i}", "label": "ab"[i % 2]} for i in range(N)]})


def dump(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
    return path


FORMATS: dict[str, tuple[Callable[[Path], Path], str, dict[str, str]]] = {
    "CoNLL": (conll, "token_classification", {"tags": "tags"}),
    "IOB1": (iob1, "token_classification", {"tags": "tags"}),
    "CoNLL-U": (conllu, "token_classification", {"tags": "tags"}),
    "SQuAD": (squad, "question_answering", {"answers": "answers"}),
    "Label Studio": (lambda path: label_studio(path, lambda i: {"choices": ["ab"[i % 2]]}), "text_classification", {"label": "label"}),
    "Label Studio, spans": (
        lambda path: label_studio(path, lambda i: {"start": 4, "end": 10, "text": "router", "labels": ["DEVICE"]}),
        "token_classification",
        {"spans": "spans"},
    ),
    "folders": (class_folders, "text_classification", {"label": "label"}),
    "flags": (flags, "text_classification", {"label": "labels"}),
    "fastText": (fasttext, "text_classification", {"label": "label"}),
    "columns": (by_columns, "text_classification", {"label": "label"}),
    "object": (inside_an_object, "text_classification", {"label": "label"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_converted(tmp_path: Path, name: str) -> None:
    write, task, columns = FORMATS[name]
    data, out = write(tmp_path), tmp_path / "out/rows.jsonl"
    out.parent.mkdir()

    with pytest.raises(BadSource, match=r"retune convert .*, (then `retune init|for several labels)|`retune convert .*` writes its rows"):
        guess_columns(data)
    assert convert(data, out)[1] == N
    guess = guess_columns(out)
    assert guess.task == task
    assert guess.columns.items() >= columns.items()


def test_iob1_becomes_bio(tmp_path: Path) -> None:
    convert(iob1(tmp_path), tmp_path / "rows.jsonl")

    assert json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])["tags"] == ["B-PER", "O"]


def test_flags_become_lists(tmp_path: Path) -> None:
    convert(flags(tmp_path), tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]

    assert [row["labels"] for row in rows[:3]] == [["toxic", "insult"], [], ["toxic"]]
    assert guess_columns(tmp_path / "rows.jsonl").shape.options["kind"] == "multi"


def test_splits_of_class_folders_are_kept(tmp_path: Path) -> None:
    convert(class_folders(tmp_path), tmp_path / "rows.jsonl")

    assert json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])["split"] == "train"


@pytest.mark.parametrize("content", ["text,label\na b c,x\nd e f,y\n", "just a text\n"])
def test_unknown_format_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "d.csv").write_text(content, encoding="utf-8")

    with pytest.raises(BadSource, match="unknown format; expected CoNLL"):
        convert(tmp_path / "d.csv", tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_malformed_file_leaves_no_rows(tmp_path: Path) -> None:
    path = squad(tmp_path)
    value = json.loads(path.read_text(encoding="utf-8"))
    value["data"][0]["paragraphs"][-1]["context"] = 7
    dump(path, value)

    with pytest.raises(BadSource, match="'context' is not a text"):
        convert(path, tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_existing_file_needs_force(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("mine\n", encoding="utf-8")

    with pytest.raises(BadParams, match="--force replaces it"):
        convert(conll(tmp_path), tmp_path / "rows.jsonl")
    assert convert(conll(tmp_path), tmp_path / "rows.jsonl", force=True)[1] == N


def test_command_names_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conll(tmp_path)
    result = CliRunner().invoke(app, ["convert", "train.txt", "rows.jsonl"], catch_exceptions=False)

    assert f"rows.jsonl: {N} rows of a CoNLL file" in result.stdout
    assert "Then: retune init rows.jsonl" in result.stdout
