"""Records of a batch scoring without a version: its plan, its parts and its manifest."""

import pyarrow as pa

from components.serving.batch.records import ScoringManifest, ScoringPlan

PLAN = ScoringPlan(
    asked="tickets@champion",
    model_uri="models:/tickets/1",
    version=1,
    package="p" * 64,
    input="in.csv",
    input_digest="d" * 64,
    rows=5,
    inputs={"text": "text"},
    rows_per_part=2,
    on_bad_row="quarantine",
    prefix="",
)
FINAL = ScoringManifest(
    model_uri="models:/tickets/1",
    version=1,
    package="p" * 64,
    input="in.csv",
    input_digest="d" * 64,
    inputs={"text": "text"},
    rows=5,
    scored=3,
    quarantined=2,
)


def part(*numbers: int) -> pa.Table:
    """Return rows with answers, or quarantined rows."""
    return pa.table({"id": pa.array(numbers, pa.int64()), "label": pa.array(map(str, numbers), pa.string())})
