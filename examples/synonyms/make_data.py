"""Make synonyms.csv: the inclusion terms of ICD-10-CM, each with the title of its code.

Reads the tabular list inside the installed package simple-icd-10-cm, as examples/diagnosis/build.py does; writes beside this file, or to
the path given as the only argument. The same edition gives the same bytes.

    python examples/synonyms/make_data.py
"""

import csv
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "diagnosis"))

from build import descriptions, edition  # noqa: E402


def main() -> None:
    """Write the CSV: id, group (the category of three characters), anchor, positive."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "synonyms.csv"
    rows = pairs(edition())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "group", "anchor", "positive"))
        writer.writerows(rows)
    print(f"{path}: {len(rows)} pairs, {len({row[1] for row in rows})} categories, {len({row[3] for row in rows})} titles")


def pairs(tabular: Path) -> list[tuple[str, str, str, str]]:
    """Return every inclusion term with its title, ordered by id."""
    rows = [row for chapter in ET.parse(tabular).getroot().iter("chapter") for row in descriptions(chapter)]
    titles = {row.id: row.text for row in rows if row.kind == "title"}
    found = [(row.id, row.group, row.text, titles[f"{row.id.rpartition('-')[0]}-0"]) for row in rows if row.kind == "inclusion"]
    return sorted(found)


if __name__ == "__main__":
    main()
