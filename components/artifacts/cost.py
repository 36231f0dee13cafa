"""`cost.json`: inference cost of candidate and champion, measured alternately on the same hardware."""

from components.artifacts.base import Artifact, Record

Blocks = tuple[tuple[float, ...], ...]


class Timed(Record):
    """Seconds per request with `batch_size` texts, by block; the nth blocks of both versions were measured next to each other.

    `champion` is None if there is no champion.
    """

    batch_size: int
    candidate: Blocks
    champion: Blocks | None = None


class Weight(Record):
    """The package size of a version in bytes, and the peak resident memory of its process in MiB, libraries included.

    The size of an adapter package includes its base model.
    """

    package_bytes: int
    peak_memory_mib: float


class Cost(Artifact):
    """Times by batch size, and the weights of both versions.

    `others` is the share of the CPU that other processes used during the measurement; None if unknown.
    """

    FILE = "cost.json"

    timed: tuple[Timed, ...]
    candidate: Weight
    champion: Weight | None = None
    others: float | None = None
