"""The folder `learn`: the encoded training and validation rows and the model spec; never the test split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from components.artifacts.manifest import MAIN, OTHERS
from components.artifacts.training import ModelSpec
from components.core.errors import NotFound


class Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded rows of an Arrow table; all columns except `length` are inputs of the model."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap `table`; a memory-mapped file is read row by row."""
        self.table = table.combine_chunks()
        self.lengths: list[int] = self.table.column("length").to_pylist()
        names = [name for name in self.table.column_names if name != "length"]
        self._columns = {name: self.table.column(name).chunk(0) for name in names} if len(self.table) else {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index].as_py() for name, column in self._columns.items()}

    def take(self, indices: list[int]) -> "Encoded":
        """Return the rows at `indices`, in that order."""
        return Encoded(self.table.take(pa.array(indices, pa.int64())))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Map the Arrow stream file that preprocessing wrote.

        Raises:
            NotFound: the file is missing.
        """
        if not path.exists():
            raise NotFound(f"{path} is missing: `dvc repro preprocess` writes it")
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return cls(stream.read_all())


@dataclass(frozen=True)
class PreparedSplits:
    """Training rows, validation rows, and the spec of the model."""

    spec: ModelSpec
    train: Encoded
    validation: Encoded
    groups: npt.NDArray[Any] | None = None
    """The group of each encoded training row, for the folds of a linear probe; None: every row is a group."""

    @classmethod
    def read(cls, folder: Path, base: str = MAIN, spec: ModelSpec | None = None) -> Self:
        """Read data/prepared/learn, encoded for the base model with the name `base`; `spec` replaces the one stored there."""
        encoded = (folder if base == MAIN else folder / OTHERS / base) / "encoded"
        spec = (spec or ModelSpec.read(folder)).model_copy(update={"base": base})
        train = Encoded.read(encoded / "train.arrow")
        return cls(spec, train, Encoded.read(encoded / "validation.arrow"), _groups(folder / "train.parquet", len(train)))


def _groups(rows: Path, encoded: int) -> npt.NDArray[Any] | None:
    """Return the column `group` of the training rows; None if it is missing, or the task encodes a row as several."""
    if not rows.exists() or "group" not in pq.read_schema(rows).names:
        return None
    groups = np.array(pq.read_table(rows, columns=["group"]).column("group").to_pylist(), dtype=object).astype(str)
    return groups if len(groups) == encoded else None
