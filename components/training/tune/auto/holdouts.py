"""Repeated hold-outs: other training and validation rows from the same rows, for data whose one validation split is too small to decide."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from components.artifacts.rows import AUGMENTED, PSEUDO, pseudo_labelled, read_rows
from components.model.support.cross_validation import make_folds
from components.training.trainer.data import Encoded, PreparedSplits

MOST_ROWS = 2_000
"""The training rows up to which hold-outs are used."""


def pooled_rows(learn: Path) -> pd.DataFrame:
    """Return the training rows, then the validation rows; `real` marks the rows whose label a person gave, which may be validated on."""
    parts = [read_rows(learn / f"{split}.parquet") for split in ("train", "validation")]
    rows = pd.concat(parts, ignore_index=True)
    copies = rows[AUGMENTED].notna() if AUGMENTED in rows else pd.Series(False, index=rows.index)
    return rows.assign(real=~(copies | (pseudo_labelled(rows) if PSEUDO in rows else False)))


def holdouts(rows: pd.DataFrame, data: PreparedSplits, number: int) -> Iterator[PreparedSplits]:
    """Yield `number` hold-outs of the pooled `rows` that `data` was encoded from.

    Groups stay whole, and labels keep their shares if possible. Each has about as many validation rows as `data`; no row is
    validated on twice until all have been.
    """
    table = pa.concat_tables([data.train.table, data.validation.table])
    real = rows["real"].to_numpy()
    share = len(data.validation) / max(1, int(real.sum()))
    folds = make_folds(rows["group"].astype(str).tolist(), rows["label"].astype(str).tolist(), count=max(2, round(1 / share)))
    folds = [(train, held) for train, held in folds if real[held].any()]
    for index in range(number if folds else 0):
        train, held = folds[index % len(folds)]
        validation = held[real[held]]
        groups = rows["group"].astype(str).to_numpy(dtype=object)[train]
        yield PreparedSplits(data.spec, Encoded(table.take(pa.array(train))), Encoded(table.take(pa.array(validation))), groups)
