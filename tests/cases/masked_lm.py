"""Support tickets without their labels."""

from pathlib import Path

import pandas as pd

from tests.conftest import make_tickets
from tests.encoders import make_encoder
from tests.line import Case


def make(folder: Path) -> Case:
    rows = make_tickets().drop(columns="label")
    base = make_encoder(folder, "bert", rows["text"].tolist())
    changes = {"gates": {"floor": {"at_least": -100.0}}}
    bad = pd.DataFrame([{"id": f"bad{place}", "group": "bad", "text": text} for place, text in enumerate(["\u200b\u200b", "  ", "a\x00b"])])
    return Case(
        *("masked_lm", pd.concat([rows, bad], ignore_index=True), base),
        metric="log_likelihood",
        measure="log_likelihood",
        baseline="base",
        bad={"text is empty": 2, "text has a control character": 1},
        changes=changes,
    )
