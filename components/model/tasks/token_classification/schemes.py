"""Entities as tags, one a token: BIO (also called IOB2) and BIOES (IOBES); `plain` tags, as parts of speech, write no entities.

BIO: Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning" (1995), in the form of Tjong Kim Sang & Veenstra (1999).
`B-X` begins an entity of type X and `I-X` goes on with it; BIOES also marks its end `E-X` and an entity of one token `S-X`; `O` is outside.
An entity is (first token, token after the last, type). Pure functions over lists of texts.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["BIO", "BIOES", "plain"]
Entity = tuple[int, int, str]

OUTSIDE = "O"
_PREFIXES = {"BIO": "BI", "BIOES": "BIES"}


def parted(tag: str) -> tuple[str, str]:
    """Return prefix and type of a tag: ("B", "PER") for B-PER, ("O", "") for O."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def known(tag: str, scheme: Scheme) -> bool:
    """Whether `tag` is one of the scheme's."""
    prefix, kind = parted(tag)
    return tag == OUTSIDE or (bool(kind) and prefix in tuple(_PREFIXES[scheme]))


def fault(tags: Sequence[str], scheme: Scheme) -> str | None:
    """Return what is wrong with the tags of a sentence, if anything; of plain tags nothing can be."""
    if scheme == "plain":
        return None
    if not all(known(tag, scheme) for tag in tags):
        listed = ", ".join(f"{prefix}-" for prefix in _PREFIXES[scheme])
        return f"a tag is neither O nor one of {listed} with a type (scheme {scheme})"
    if written(entities(tags, scheme), len(tags), scheme) != list(tags):
        if scheme == "BIO":
            return "an I- tag follows no B- or I- of its type (scheme BIO)"
        return "an entity has no B- or E-, or an I- or E- follows no B- or I- of its type (scheme BIOES)"
    return None


def entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """Return the entities that are written without a fault, in their order; what is not well-formed counts for nothing.

    This is seqeval's strict mode: in BIO an entity begins with B-, in BIOES it also ends with E-, or is one S-.
    """
    found: list[Entity] = []
    begun: tuple[int, str] | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parted(tag)
        if begun and prefix in ("I", "E") and kind == begun[1]:
            if prefix == "E":
                found.append((begun[0], place + 1, kind))
                begun = None
            continue
        if begun and scheme == "BIO":
            found.append((begun[0], place, begun[1]))
        begun = (place, kind) if prefix == "B" else None
        if prefix == "S":
            found.append((place, place + 1, kind))
    return found


def guessed(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that `tags` may have meant: as `entities`, but a missing B- or E- is made up for, as conlleval does."""
    found: list[Entity] = []
    begun: tuple[int, str] | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parted(tag)
        goes_on = begun is not None and prefix in ("I", "E") and kind == begun[1]
        if begun and not goes_on:
            found.append((begun[0], place, begun[1]))
            begun = None
        if prefix != OUTSIDE and not goes_on:
            begun = (place, kind)
        if begun and prefix in ("E", "S"):
            found.append((begun[0], place + 1, begun[1]))
            begun = None
    return found


def written(found: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence of `length` tokens with the entities `found`, none of which overlap."""
    tags = [OUTSIDE] * length
    for begin, end, kind in found:
        tags[begin:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - begin - 1)]
        if scheme == "BIOES":
            tags[end - 1] = f"E-{kind}" if end - begin > 1 else f"S-{kind}"
    return tags


def repaired(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Return `tags` with a missing B- or E- made up for, as a sentence needs that was cut within an entity; well-formed ones are kept."""
    return list(tags) if scheme == "plain" else written(guessed(tags), len(tags), scheme)


def joined(one: Sequence[str], other: Sequence[str], scheme: Scheme) -> list[str]:
    """Return the tags of two parts of a sentence as one: an entity that touches the cut on both sides, with one type, was cut by it."""
    tags = [*one, *other]
    before = [entity for entity in entities(one, scheme) if entity[1] == len(one)]
    after = [entity for entity in entities(other, scheme) if entity[0] == 0]
    if scheme != "plain" and before and after and before[0][2] == after[0][2]:
        begin, end = before[0][0], len(one) + after[0][1]
        tags[begin:end] = written([(0, end - begin, before[0][2])], end - begin, scheme)
    return tags


def label_map(tags: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Return the label map of data with `tags`: O first, then all prefixes of each type, seen or not; plain tags as they are, sorted."""
    if scheme == "plain":
        return tuple(sorted(set(tags)))
    kinds = sorted({parted(tag)[1] for tag in tags if tag != OUTSIDE})
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in _PREFIXES[scheme]))
