"""CoNLL files as rows: one token a line, its columns parted by white space, sentences parted by blank lines.

    python -m components.model.tasks.token_classification.conll train.txt > train.jsonl

writes a JSON line a sentence with `tokens` and `tags`, and with `group`, the document's number, where the file says where documents begin.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from components.core.exits import run_command
from components.model.tasks.token_classification.schemes import guessed, written

DOCUMENT = ("-DOCSTART-", "# newdoc")


def sentences(lines: Iterable[str], token: int = 0, tag: int = -1, conllu: bool = False) -> Iterator[dict[str, Any]]:
    """Yield each sentence of a CoNLL file as {tokens, tags}, and {group} once a document has begun.

    `token` and `tag` are columns, from 0, or from the end below 0. With `conllu` columns are parted by tabs, lines that begin with #
    are comments, and lines of several words (1-2) or of none (1.1) are left out.

    Raises:
        ValueError: a line has too few columns.
    """
    document = 0
    numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
    for blank, block in groupby(numbered, key=lambda each: not each[1].strip()):
        found: list[tuple[str, str]] = []
        for number, line in () if blank else block:
            if line.startswith(DOCUMENT[conllu]):
                document += 1
            elif not (conllu and (line.startswith("#") or not line.split("\t")[0].isdigit())):
                found.append(_cells(line.split("\t") if conllu else line.split(), token, tag, number))
        if found:
            row: dict[str, Any] = {"tokens": [word for word, _ in found], "tags": [label for _, label in found]}
            yield row | ({"group": f"document {document}"} if document else {})


def as_bio(tags: list[str]) -> list[str]:
    """Return tags of the scheme IOB1, where B- only stands between two entities of a type, in BIO, where every entity begins with B-."""
    return written(guessed(tags), len(tags), "BIO")


def main() -> None:
    """Write the sentences of a file as JSON lines to standard output."""
    parser = argparse.ArgumentParser(prog="python -m components.model.tasks.token_classification.conll", description="CoNLL to JSON lines")
    parser.add_argument("file", type=Path)
    parser.add_argument("--token", type=int, help="column of the token, from 0; default 0, with --conllu 1")
    parser.add_argument("--tag", type=int, help="column of the tag; default -1, the last one, with --conllu 3 (UPOS)")
    parser.add_argument("--conllu", action="store_true", help="the file is CoNLL-U: tabs, comments, ranges of words")
    parser.add_argument("--iob1", action="store_true", help="the tags are IOB1; write BIO")
    given = parser.parse_args()
    usual = (1, 3) if given.conllu else (0, -1)
    token, tag = (own if column is None else column for own, column in zip(usual, (given.token, given.tag), strict=True))
    with given.file.open(encoding="utf-8-sig") as lines:
        for row in sentences(lines, token, tag, given.conllu):
            tags = as_bio(row["tags"]) if given.iob1 else row["tags"]
            sys.stdout.write(json.dumps(row | {"tags": tags}, ensure_ascii=False) + "\n")


def _cells(columns: list[str], token: int, tag: int, number: int) -> tuple[str, str]:
    try:
        return columns[token], columns[tag]
    except IndexError:
        raise ValueError(f"line {number} has {len(columns)} columns, expected the token in {token} and the tag in {tag}") from None


if __name__ == "__main__":
    sys.exit(run_command(main))
