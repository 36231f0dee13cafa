"""Support tickets, and the same words in another order."""

from pathlib import Path

from tests.conftest import make_tickets
from tests.encoders import make_encoder
from tests.line import Case


def make(folder: Path) -> Case:
    rows = make_tickets()
    turned = [" ".join(text.split()[::-1]) for text in rows["text"]]
    pairs = rows.rename(columns={"text": "anchor"}).assign(positive=turned).drop(columns="label")
    base = make_encoder(folder, "bert", rows["text"].tolist())
    return Case("contrastive", pairs, base, metric="mrr", measure="mrr", baseline="tfidf")
