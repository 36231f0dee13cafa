"""`cost.json`: what answering costs, measured for the candidate and the champion in turn on one machine."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact

Blocks = tuple[tuple[float, ...], ...]


class Timed(BaseModel):
    """The seconds of each request with `batch_size` texts, by block; block n of the champion was measured next to block n of the candidate.

    `champion` is None where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int
    candidate: Blocks
    champion: Blocks | None = None


class Weight(BaseModel):
    """The size of a version's package in bytes, and the most MiB that its process had resident, libraries included.

    A package that stores an adapter counts with the base that it cannot be loaded without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package_bytes: int
    peak_memory_mib: float


class Cost(Artifact):
    """The times by batch size, and what both versions weigh.

    `others` is the share of the machine's processors that other processes used meanwhile, None where that is not known.
    """

    FILE: ClassVar[str] = "cost.json"

    timed: tuple[Timed, ...]
    candidate: Weight
    champion: Weight | None = None
    others: float | None = None
