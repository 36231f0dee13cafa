"""Convert CoNLL files: one token per line, columns separated by white space, sentences by blank lines.

    python -m components.model.tasks.token_classification.conll train.txt > train.jsonl

writes one JSON line per sentence with `tokens` and `tags`, and `group`, the document number, if the file marks documents.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from components.core.exits import run_command
from components.model.tasks.token_classification.schemes import lenient_entities, to_tags

DOCUMENT = ("-DOCSTART-", "# newdoc")


def sentences(lines: Iterable[str], token: int = 0, tag: int = -1, conllu: bool = False) -> Iterator[dict[str, Any]]:
    """Yield each sentence of a CoNLL file as {tokens, tags}, and {group} after the first document mark.

    `token` and `tag` are column indexes; negative ones count from the end. With `conllu`, columns are separated by tabs, lines with # are
    comments, and multiword (1-2) and empty (1.1) tokens are skipped. Raise ValueError if a line has too few columns.
    """
    document = 0
    numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
    for blank, block in groupby(numbered, key=lambda item: not item[1].strip()):
        pairs: list[tuple[str, str]] = []
        for number, line in () if blank else block:
            if line.startswith(DOCUMENT[conllu]):
                document += 1
            elif not (conllu and (line.startswith("#") or not line.split("\t")[0].isdigit())):
                pairs.append(_cells(line.split("\t") if conllu else line.split(), token, tag, number))
        if pairs:
            row: dict[str, Any] = {"tokens": [word for word, _ in pairs], "tags": [label for _, label in pairs]}
            yield row | ({"group": f"document {document}"} if document else {})


def as_bio(tags: list[str]) -> list[str]:
    """Convert IOB1 tags (B- only between adjacent entities of a type) to BIO (B- at the start of every entity)."""
    return to_tags(lenient_entities(tags), len(tags), "BIO")


def main() -> None:
    """Write the sentences of a file to standard output as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m components.model.tasks.token_classification.conll", description="CoNLL to JSON lines")
    parser.add_argument("file", type=Path)
    parser.add_argument("--token", type=int, help="column of the token, from 0; default 0, with --conllu 1")
    parser.add_argument("--tag", type=int, help="column of the tag; default -1, the last one, with --conllu 3 (UPOS)")
    parser.add_argument("--conllu", action="store_true", help="the file is CoNLL-U: tabs, comments, ranges of words")
    parser.add_argument("--iob1", action="store_true", help="the tags are IOB1; write BIO")
    arguments = parser.parse_args()
    defaults = (1, 3) if arguments.conllu else (0, -1)
    token, tag = (default if column is None else column for default, column in zip(defaults, (arguments.token, arguments.tag), strict=True))
    with arguments.file.open(encoding="utf-8-sig") as lines:
        for row in sentences(lines, token, tag, arguments.conllu):
            tags = as_bio(row["tags"]) if arguments.iob1 else row["tags"]
            sys.stdout.write(json.dumps(row | {"tags": tags}, ensure_ascii=False) + "\n")


def _cells(columns: list[str], token: int, tag: int, line: int) -> tuple[str, str]:
    try:
        return columns[token], columns[tag]
    except IndexError:
        raise ValueError(
            f"line {line} has {len(columns)} columns, expected the token in column {token} and the tag in column {tag}"
        ) from None


if __name__ == "__main__":
    sys.exit(run_command(main))
