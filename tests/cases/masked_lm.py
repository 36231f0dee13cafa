"""Support tickets without their labels."""

from pathlib import Path

from tests.conftest import make_tickets
from tests.encoders import make_encoder
from tests.line import Case


def make(folder: Path) -> Case:
    rows = make_tickets().drop(columns="label")
    base = make_encoder(folder, "bert", rows["text"].tolist())
    changes = {"gates": {"floor": {"at_least": -100.0}}}
    return Case("masked_lm", rows, base, metric="log_likelihood", measure="log_likelihood", baseline="base", changes=changes)
