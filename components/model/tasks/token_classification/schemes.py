"""Tagging schemes: BIO (IOB2) and BIOES (IOBES); `plain` tags, e.g. parts of speech, do not encode entities.

BIO: Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning" (1995), in the form of Tjong Kim Sang & Veenstra (1999).
`B-X` begins an entity of type X and `I-X` continues it; BIOES also marks its end `E-X` and a single token `S-X`; `O` is outside.
An entity is (first token, last token + 1, type).
"""

from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["BIO", "BIOES", "plain"]
Entity = tuple[int, int, str]

OUTSIDE = "O"
_PREFIXES = {"BIO": "BI", "BIOES": "BIES"}


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into prefix and type: ("B", "PER") for B-PER, ("O", "") for O."""
    prefix, _, entity_type = tag.partition("-")
    return prefix, entity_type


def is_valid(tag: str, scheme: Scheme) -> bool:
    """Whether `tag` is valid in the scheme."""
    prefix, entity_type = split_tag(tag)
    return tag == OUTSIDE or (bool(entity_type) and prefix in tuple(_PREFIXES[scheme]))


def tag_error(tags: Sequence[str], scheme: Scheme) -> str | None:
    """Return the error in the tags of a sentence, if any; plain tags are always valid."""
    if scheme == "plain":
        return None
    if not all(is_valid(tag, scheme) for tag in tags):
        listed = ", ".join(f"{prefix}-" for prefix in _PREFIXES[scheme])
        return f"a tag is neither O nor one of {listed} with a type (scheme {scheme})"
    if to_tags(entities(tags, scheme), len(tags), scheme) != list(tags):
        if scheme == "BIO":
            return "an I- tag follows no B- or I- of its type (scheme BIO)"
        return "an entity has no B- or E-, or an I- or E- follows no B- or I- of its type (scheme BIOES)"
    return None


def entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """Return the well-formed entities in order; malformed ones are ignored.

    This is seqeval's strict mode: in BIO an entity begins with B-, in BIOES it also ends with E-, or is one S-. Tags of BIOES are read in
    BIO too, because a champion may have been trained in the other scheme.
    """
    completed: list[Entity] = []
    current: tuple[int, str] | None = None
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, entity_type = split_tag(tag)
        if current and prefix in ("I", "E") and entity_type == current[1]:
            if prefix == "E":
                completed.append((current[0], index + 1, entity_type))
                current = None
            continue
        if current and scheme == "BIO":
            completed.append((current[0], index, current[1]))
        current = (index, entity_type) if prefix == "B" else None
        if prefix == "S":
            completed.append((index, index + 1, entity_type))
    return completed


def lenient_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities including those with a missing B- or E-, as conlleval does."""
    completed: list[Entity] = []
    current: tuple[int, str] | None = None
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, entity_type = split_tag(tag)
        continued = current is not None and prefix in ("I", "E") and entity_type == current[1]
        if current and not continued:
            completed.append((current[0], index, current[1]))
            current = None
        if prefix != OUTSIDE and not continued:
            current = (index, entity_type)
        if current and prefix in ("E", "S"):
            completed.append((current[0], index + 1, current[1]))
            current = None
    return completed


def to_tags(spans: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence of `length` tokens with non-overlapping entities."""
    tags = [OUTSIDE] * length
    for begin, end, entity_type in spans:
        tags[begin:end] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (end - begin - 1)]
        if scheme == "BIOES":
            tags[end - 1] = f"E-{entity_type}" if end - begin > 1 else f"S-{entity_type}"
    return tags


def repair_tags(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Add a missing B- or E-, e.g. of a sentence cut inside an entity; well-formed tags are kept."""
    return list(tags) if scheme == "plain" else to_tags(lenient_entities(tags), len(tags), scheme)


def join_tags(first: Sequence[str], second: Sequence[str], scheme: Scheme) -> list[str]:
    """Join the tags of two parts of a sentence; entities of one type on both sides of the cut are merged."""
    tags = [*first, *second]
    before = [entity for entity in entities(first, scheme) if entity[1] == len(first)]
    after = [entity for entity in entities(second, scheme) if entity[0] == 0]
    if scheme != "plain" and before and after and before[0][2] == after[0][2]:
        begin, end = before[0][0], len(first) + after[0][1]
        tags[begin:end] = to_tags([(0, end - begin, before[0][2])], end - begin, scheme)
    return tags


def label_map(tags: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Return the label map for `tags`: O first, then all prefixes of each type; plain tags sorted."""
    if scheme == "plain":
        return tuple(sorted(set(tags)))
    types = sorted({split_tag(tag)[1] for tag in tags if tag != OUTSIDE})
    return (OUTSIDE, *(f"{prefix}-{entity_type}" for entity_type in types for prefix in _PREFIXES[scheme]))
