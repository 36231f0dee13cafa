"""SQuAD's JSON as rows: `python -m components.model.tasks.question_answering.squad FILE OUT.jsonl`.

Reads a file in the form of SQuAD 1.1 or 2.0 (data, paragraphs, qas) and writes a line for each question: id, group, question,
context, answers. Questions of one context are one group, so that they stay in one split and are resampled together; with
`--group title`, those of one article.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import BadSource
from components.core.exits import run_command
from components.model.tasks.question_answering.contexts import group_of

_FORM = "expected SQuAD's JSON: an object with data, a list of articles with paragraphs, each with a context and qas"


def rows(data: Any, group: str = "context") -> Iterator[dict[str, Any]]:
    """Yield the questions of the parsed file `data`; `group` is context or title.

    Plausible answers to questions that have none are left out.

    Raises:
        BadSource: it has another form.
    """
    for article in _parts(data, "data"):
        for paragraph in _parts(article, "paragraphs"):
            context = _text(paragraph, "context")
            name = _text(article, "title") if group == "title" else group_of(context)
            for question in _parts(paragraph, "qas"):
                impossible = question.get("is_impossible") is True
                given = [] if impossible else _parts(question, "answers")
                answers = {"text": [one.get("text") for one in given], "answer_start": [one.get("answer_start") for one in given]}
                text = _text(question, "question")
                yield {"id": str(question.get("id")), "group": name, "question": text, "context": context, "answers": answers}


def convert(source: Path, out: Path, group: str = "context") -> int:
    """Write the questions of the file `source` to `out` as JSON lines, and return their number.

    Raises:
        BadSource: the file is missing, is not JSON, or has another form; `out` is then not written.
    """
    try:
        data = json.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadSource(f"{source} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadSource(f"{source} is not JSON: {error}") from None
    found = [json.dumps(row, ensure_ascii=False) for row in rows(data, group)]
    out.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    return len(found)


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description="SQuAD's JSON as one question a line")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group", choices=("context", "title"), default="context", help="what stays together in one split")
    given = parser.parse_args()
    print(f"{given.out}: {convert(given.file, given.out, given.group)} questions")


def _parts(value: Any, name: str) -> list[Mapping[str, Any]]:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(part, Mapping) for part in found):
        raise BadSource(f"{_FORM}; {name!r} is no list of objects")
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise BadSource(f"{_FORM}; a {name} is no text")
    return found


if __name__ == "__main__":
    sys.exit(run_command(main))
