"""Convert SQuAD JSON to rows: `python -m components.model.tasks.question_answering.squad FILE OUT.jsonl`.

Reads SQuAD 1.1 or 2.0 (data, paragraphs, qas) and writes one line per question: id, group, question, context, answers. Questions about one
context form a group, which stays in one split; with `--group title`, those of one article.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import BadSource
from components.core.exits import run_command
from components.model.tasks.question_answering.answers import group_of

_FORM = "expected SQuAD's JSON: an object with data, a list of articles with paragraphs, each with a context and qas"


def rows(data: Any, group: str = "context") -> Iterator[dict[str, Any]]:
    """Yield the questions of the parsed file `data`; `group` is context or title.

    Plausible answers of unanswerable questions are skipped. Raise BadSource if the format is invalid.
    """
    for article in _parts(data, "data"):
        for paragraph in _parts(article, "paragraphs"):
            context = _text(paragraph, "context")
            name = _text(article, "title") if group == "title" else group_of(context)
            for question in _parts(paragraph, "qas"):
                impossible = question.get("is_impossible") is True
                items = [] if impossible else _parts(question, "answers")
                answers = {"text": [item.get("text") for item in items], "answer_start": [item.get("answer_start") for item in items]}
                text = _text(question, "question")
                yield {"id": str(question.get("id")), "group": name, "question": text, "context": context, "answers": answers}


def convert(source: Path, out: Path, group: str = "context") -> int:
    """Write the questions of the file `source` to `out` as JSON lines, and return their number.

    Raise BadSource if the file is missing or invalid; `out` is not written.
    """
    try:
        data = json.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadSource(f"{source} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadSource(f"{source} is not JSON: {error}") from None
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(data, group)]
    out.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Convert SQuAD JSON to one question per line")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group", choices=("context", "title"), default="context", help="which questions stay together in one split")
    arguments = parser.parse_args()
    print(f"{arguments.out}: {convert(arguments.file, arguments.out, arguments.group)} questions")


def _parts(value: Any, name: str) -> list[Mapping[str, Any]]:
    items = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(part, Mapping) for part in items):
        raise BadSource(f"{_FORM}; {name!r} is not a list of objects")
    return items


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise BadSource(f"{_FORM}; {name!r} is not a text")
    return text


if __name__ == "__main__":
    sys.exit(run_command(main))
