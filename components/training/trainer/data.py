"""The folder `learn` as training sees it: encoded rows of two splits and how to read the model's answers; never the test split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import torch

from components.artifacts.manifest import MAIN, OTHERS
from components.artifacts.training import ModelSpec
from components.core.errors import NotFound


class Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids of rows, from an Arrow table; what a row holds beside `length` is what the model takes."""

    def __init__(self, table: pa.Table) -> None:
        """Hold `table`; an Arrow file stays on disk until a row is asked for."""
        self.table = table.combine_chunks()
        self.lengths: list[int] = self.table.column("length").to_pylist()
        names = [name for name in self.table.column_names if name != "length"]
        self._columns = {name: self.table.column(name).chunk(0) for name in names} if len(self.table) else {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {name: column[place].as_py() for name, column in self._columns.items()}

    def take(self, places: list[int]) -> "Encoded":
        """Return the rows at `places`, in that order."""
        return Encoded(self.table.take(pa.array(places, pa.int64())))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Map the Arrow stream file that preprocessing wrote.

        Raises:
            NotThere: it is missing.
        """
        if not path.exists():
            raise NotFound(f"{path} is missing: `dvc repro preprocess` writes it")
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return cls(stream.read_all())


@dataclass(frozen=True)
class PreparedSplits:
    """What a model may learn from: training rows, validation rows, and the contract of the model to be."""

    spec: ModelSpec
    train: Encoded
    validation: Encoded

    @classmethod
    def read(cls, folder: Path, base: str = MAIN) -> Self:
        """Read data/prepared/learn, encoded for the base model that `train.base` calls `base`."""
        encoded = (folder if base == MAIN else folder / OTHERS / base) / "encoded"
        spec = ModelSpec.read(folder).model_copy(update={"base": base})
        return cls(spec, Encoded.read(encoded / "train.arrow"), Encoded.read(encoded / "validation.arrow"))
