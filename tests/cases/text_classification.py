"""Support tickets."""

from pathlib import Path

import pandas as pd

from tests.conftest import FILLER, TOPICS, make_tickets
from tests.line import Case
from tests.tiny import make_tiny_base


def make(folder: Path) -> Case:
    words = sorted({word for topic in TOPICS.values() for word in topic} | set(FILLER))
    base = make_tiny_base(folder, words)
    rows = make_tickets()
    bad = [{"label": "weather"}, {"label": "Billing"}, {"text": "\u200b\u200b"}]
    strange = pd.DataFrame([rows.iloc[0].to_dict() | {"id": f"bad{place}"} | cells for place, cells in enumerate(bad)])
    return Case(
        *("text_classification", pd.concat([rows, strange], ignore_index=True), base),
        metric="macro_f1",
        measure="accuracy",
        baseline="tfidf",
        bad={"label is not in validate.labels": 2, "text is empty": 1},
        changes={"validate": {"labels": sorted(TOPICS)}},
    )
