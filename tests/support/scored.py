"""A batch scoring without a version: its start, its parts, and its report at the end."""

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
    """Rows with answers, or rows of a quarantine."""
    return pa.table({"id": pa.array(numbers, pa.int64()), "label": pa.array(map(str, numbers), pa.string())})
