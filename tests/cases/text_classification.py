"""Support tickets."""

from pathlib import Path

from tests.conftest import FILLER, TOPICS, make_tickets
from tests.line import Case
from tests.tiny import make_tiny_base


def make(folder: Path) -> Case:
    words = sorted({word for topic in TOPICS.values() for word in topic} | set(FILLER))
    base = make_tiny_base(folder, words)
    return Case("text_classification", make_tickets(), base, metric="macro_f1", measure="accuracy", baseline="tfidf")
