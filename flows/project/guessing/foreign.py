"""Files of other formats that can be converted to rows: CoNLL, SQuAD, Label Studio, fastText, folders with one text per file."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BadSource
from components.data.snapshot.given_splits import SPLIT_WORDS
from components.data.snapshot.tables import FORMATS
from components.model.tasks.question_answering import squad
from components.model.tasks.token_classification import conll
from components.model.tasks.token_classification.schemes import is_valid, tag_error

Row = dict[str, Any]
_HEAD = 200  # lines that show the format
_TAG_SUFFIXES = {".conll", ".conllu", ".bio", ".iob", ".iob2", ".ner"}
_TEXT_SUFFIXES = {".txt", ".tsv", ".csv", ""}
_FASTTEXT = "__label__"
_MOST_COLUMNS = 15  # of a CoNLL file
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Conversion:
    """The name of a format, with an article, and the function that returns the rows of a file of it."""

    name: str
    rows: Callable[[], Iterator[Row]]


def conversion(data: Path) -> Conversion | None:
    """Return how to convert a file or folder; None if it has a format that snapshots read, or an unknown one.

    The rows raise BadSource if the file is malformed.
    """
    if data.is_dir():
        return _class_folders(data)
    if not data.is_file() or FORMATS.get(data.suffix.lower()) == "parquet":
        return None
    lines = _first_lines(data)
    if data.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return _json(data, lines)
    if lines and sum(line.startswith(_FASTTEXT) for line in lines) > _NEARLY_ALL * len([line for line in lines if line.strip()]):
        return Conversion("a fastText file (__label__ before each text)", lambda: _fasttext(data))
    return _conll(data, lines) if data.suffix.lower() in _TAG_SUFFIXES | _TEXT_SUFFIXES else None


def _first_lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return [line.rstrip("\r\n") for line, _ in zip(file, range(_HEAD), strict=False)]


def _class_folders(folder: Path) -> Conversion | None:
    """Return the conversion of a folder whose files are texts and whose lowest folders are classes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() in (".txt", "") and path.parent != folder]
    classes = {path.parent.name for path in files} - set(SPLIT_WORDS)
    others = [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in FORMATS]
    if len(classes) < 2 or len(others) > 0.1 * len(files):
        return None

    def rows() -> Iterator[Row]:
        for path in files:
            *above, label = path.relative_to(folder).parent.parts
            split = {"split": SPLIT_WORDS[above[0].lower()]} if above and above[0].lower() in SPLIT_WORDS else {}
            if label not in SPLIT_WORDS:
                text = _read(path).strip()
                yield {"id": path.relative_to(folder).as_posix(), "text": text, "label": label, **split}

    return Conversion(f"a folder with {len(files):,} texts in folders of {len(classes)} classes", rows)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSource(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}): convert it, e.g. with `iconv -f cp1252 -t utf-8`"
        ) from None


def _fasttext(path: Path) -> Iterator[Row]:
    lines = [line.split() for line in _read(path).splitlines() if line.strip()]
    several = any(sum(word.startswith(_FASTTEXT) for word in words) != 1 for words in lines)
    for words in lines:
        labels = [word.removeprefix(_FASTTEXT) for word in words if word.startswith(_FASTTEXT)]
        text = " ".join(word for word in words if not word.startswith(_FASTTEXT))
        yield {"text": text, **({"labels": labels} if several else {"label": labels[0]})}


def _conll(path: Path, lines: list[str]) -> Conversion | None:
    """Return the conversion of a file with a token per line, its tag in the last column, and blank lines between sentences."""
    tokens = [line for line in lines if line.strip() and not line.startswith(("#", conll.DOCUMENT[0]))]
    widths = Counter(len(line.split()) for line in tokens)
    width = widths.most_common(1)[0][0] if widths else 0
    blank = sum(not line.strip() for line in lines)
    tags = Counter(line.split()[-1] for line in tokens)
    regular = 2 <= width <= _MOST_COLUMNS and widths[width] >= _NEARLY_ALL * len(tokens)
    entities = regular and all(is_valid(tag, "BIOES") or is_valid(tag, "BIO") for tag in tags)
    if not regular or not (path.suffix.lower() in _TAG_SUFFIXES or (blank and (entities or len(tags) < len(tokens) / 4))):
        return None
    universal = path.suffix.lower() == ".conllu" or all(line.count("\t") == 9 for line in tokens)
    name = "a CoNLL-U file" if universal else "a CoNLL file (a token and its tag per line, a blank line after each sentence)"

    def rows() -> Iterator[Row]:
        content = [line for line in _read(path).split("\n") if universal or not (line.startswith("#") and len(line.split()) != width)]
        try:
            found = list(conll.sentences(content, *((1, 3, True) if universal else (0, -1, False))))
        except ValueError as error:
            raise BadSource(f"{path}: {error}") from None
        iob1 = all(is_valid(tag, "BIO") for row in found for tag in row["tags"]) and any(tag_error(row["tags"], "BIO") for row in found)
        yield from ({**row, "tags": conll.as_bio(row["tags"])} if iob1 else row for row in found)

    return Conversion(name, rows)


def _json(path: Path, lines: list[str]) -> Conversion | None:
    """Return the conversion of SQuAD, a Label Studio export, a table by columns, or rows inside an object."""
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first.startswith(("{", "[")) or (first.startswith("{") and first.endswith("}") and len(lines) > 1):
        return None  # JSONL
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # the reader reports the fault
    if isinstance(value, list):
        tasks = value and all(isinstance(task, dict) and isinstance(task.get("data"), dict) and "annotations" in task for task in value)
        return Conversion("a Label Studio export", lambda: _label_studio(value)) if tasks else None
    articles = value.get("data")
    if isinstance(articles, list) and articles and isinstance(articles[0], dict) and "paragraphs" in articles[0]:
        return Conversion("a SQuAD file", lambda: squad.rows(value))
    if path.suffix.lower() != ".json":
        return None  # one row of JSONL
    if all(isinstance(cells, list) for cells in value.values()) and len({len(cells) for cells in value.values()}) == 1 and len(value) > 1:
        columns = list(value.values())
        return Conversion("JSON by columns", lambda: (dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)))
    if value and all(isinstance(cells, dict) for cells in value.values()) and len({tuple(cells) for cells in value.values()}) == 1:
        if all(re.fullmatch(r"\d+", name) for name in next(iter(value.values()))):
            return Conversion(
                "JSON by columns", lambda: ({name: cells[row] for name, cells in value.items()} for row in next(iter(value.values())))
            )
        return Conversion("JSON with an object for each row", lambda: iter(value.values()))
    tables = {name: items for name, items in value.items() if isinstance(items, list) and items and all(isinstance(i, dict) for i in items)}
    if len(tables) == 1:
        ((name, items),) = tables.items()
        return Conversion(f"a JSON object with rows in {name!r}", lambda: iter(items))
    return None


def _label_studio(tasks: list[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the annotated rows of an export: text and label, several labels, a number, or spans; cancelled annotations do not count."""
    annotated = []
    for task in tasks:
        if kept := [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]:
            annotated.append((task, [item["value"] for item in kept[0].get("result") or [] if isinstance(item.get("value"), dict)]))
    whole = any("choices" in value or "rating" in value or "number" in value for _, values in annotated for value in values)
    several = any(len(value.get("choices", ())) > 1 for _, values in annotated for value in values)
    for task, values in annotated:
        texts = [cell for cell in task["data"].values() if isinstance(cell, str)]
        row: Row = {"id": str(task.get("id")), "text": max(texts, key=len, default="")}
        answers = [value[name] for value in values for name in ("choices", "rating", "number") if name in value]
        if answers:
            label = answers[0]
            yield row | {"label": label[0] if isinstance(label, list) and len(label) == 1 and not several else label}
        elif not whole:
            spans = [[value["start"], value["end"], value["labels"][0]] for value in values if value.get("labels") and "start" in value]
            yield row | {"spans": spans}
