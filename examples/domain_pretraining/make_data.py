"""Make the data of the example: titles.csv, texts without labels, and labelled.csv, a few texts with their chapter and many test rows.

Reads the tabular list inside the installed package simple-icd-10-cm, and examples/diagnosis/diagnosis.csv; writes beside this file.
Both files name the category of each text as its group, and all parameter files here split groups alike: what the classifiers are tested
on is in no text that the language model learns from. The same edition gives the same bytes.

    python examples/domain_pretraining/make_data.py
"""

import csv
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
DIAGNOSIS = HERE.parent / "diagnosis"
sys.path[:0] = [str(DIAGNOSIS), str(HERE.parents[1])]

from build import Row, descriptions, draw, edition  # noqa: E402

from components.data.preprocess.splits import split_of  # noqa: E402

SPLIT = (20261121, 0.2, 0.1)  # split_seed, test_share and validation_share of the parameter files
TEXTS = 12  # of a category, without labels
LABELLED = {"train": 12, "validation": 4}  # of a chapter; of the test categories all of diagnosis.csv


def main() -> None:
    """Write both files."""
    rows = [row for chapter in ET.parse(edition()).getroot().iter("chapter") for row in descriptions(chapter)]
    with (DIAGNOSIS / "diagnosis.csv").open(encoding="utf-8", newline="") as file:
        known = [Row(**cells) for cells in csv.DictReader(file)]
    titles = [(row.id, row.group, row.text) for own in drawn(rows, lambda row: row.group) for row in own[:TEXTS]]
    labelled = [(row.id, row.group, row.text, row.label) for row in few(known)]
    write(HERE / "titles.csv", ("id", "group", "text"), titles)
    write(HERE / "labelled.csv", ("id", "group", "text", "label"), labelled)


def few(rows: Iterable[Row]) -> list[Row]:
    """Return all rows of the test categories, and of each chapter as many others as LABELLED says."""
    chosen = []
    for own in drawn(rows, lambda row: (row.label, split_of(SPLIT[0], row.group, SPLIT[1], SPLIT[2]))):
        split = split_of(SPLIT[0], own[0].group, SPLIT[1], SPLIT[2])
        chosen += own if split == "test" else own[: LABELLED[split]]
    return chosen


def drawn(rows: Iterable[Row], key: Callable[[Row], object]) -> list[list[Row]]:
    """Return the rows of each key, sorted by a hash of their ids."""
    found: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return [sorted(own, key=draw) for own in found.values()]


def write(path: Path, header: Sequence[str], rows: list[tuple[str, ...]]) -> None:
    """Write the rows, ordered by id."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(sorted(rows))
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main()
