"""Support tickets, and the same words in another order."""

from pathlib import Path

import pandas as pd

from tests.conftest import make_tickets
from tests.encoders import make_encoder
from tests.line import Case


def make(folder: Path) -> Case:
    rows = make_tickets()
    turned = [" ".join(text.split()[::-1]) for text in rows["text"]]
    pairs = rows.rename(columns={"text": "anchor"}).assign(positive=turned).drop(columns="label")
    base = make_encoder(folder, "bert", rows["text"].tolist())
    empty = ["\u200b\u200b", "  "]
    bad = pd.DataFrame([pairs.iloc[0].to_dict() | {"id": f"bad{place}", "positive": text} for place, text in enumerate(empty)])
    return Case(
        *("contrastive", pd.concat([pairs, bad], ignore_index=True), base),
        metric="mrr",
        measure="mrr",
        baseline="tfidf",
        bad={"positive is empty": 2},
    )
