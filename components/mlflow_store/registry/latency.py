"""What answering costs: two versions timed in turn, block by block, so that a machine that slows down slows both.

Two runs one after the other call equal versions different in 80 % of cases; pairs of blocks in random order do not (docs/log.md).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pandas as pd
import psutil

from components.artifacts.cost import Blocks, Cost, Timed, Weight
from components.mlflow_store.registry.package import base_bytes
from components.mlflow_store.registry.verify import checked_package, registered_version
from components.mlflow_store.registry.worker_client import Session

log = logging.getLogger(__name__)

PAIRS = 20
REQUESTS = 10
FEWEST_REQUESTS = 2
SECONDS = 20.0
WARM_UP = 3  # requests; the first ones of a size also pay for memory and for kernels chosen by shape


def package_bytes(uri: str, name: str, number: int) -> int:
    """Return the bytes of all files in a version's package, after they were checked; with those of the base that it cannot be without.

    Raises:
        NotThere: no such version.
        BadModel: its package is not what was registered.
    """
    folder = checked_package(uri, registered_version(uri, name, number))
    return size_of(folder) + base_bytes(folder)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(
    candidate: Session,
    champion: Session | None,
    rows: pd.DataFrame,
    *,
    sizes: tuple[int, int | None],
    batch_sizes: Sequence[int] = (1, 32),
    pairs: int = PAIRS,
    requests: int = REQUESTS,
    seconds: float = SECONDS,
    seed: int = 0,
) -> Cost:
    """Time both versions over `pairs` pairs of blocks in random order at each batch size, after warming up.

    `rows` are taken in turn, both versions of a pair the same ones. A block has `requests` requests, and fewer (at least 2) where all
    blocks of a batch size would take longer than its share of `seconds`. `sizes` are the packages' bytes, candidate first.

    Raises:
        BadModel, Unavailable, Cancelled: a version could not be asked.
    """
    sessions = [candidate] if champion is None else [candidate, champion]
    random = Random(seed)
    before = _used(sessions)
    timed = tuple(_timed(sessions, rows, batch, pairs, requests, seconds / len(batch_sizes), random) for batch in batch_sizes)
    others = _others(before, _used(sessions))
    weights = [
        Weight(package_bytes=size or 0, peak_memory_mib=session.peak_memory()) for session, size in zip(sessions, sizes, strict=False)
    ]
    return Cost(timed=timed, candidate=weights[0], champion=weights[1] if champion is not None else None, others=others)


def _timed(
    sessions: Sequence[Session], rows: pd.DataFrame, batch_size: int, pairs: int, requests: int, seconds: float, random: Random
) -> Timed:
    """Time every session over `pairs` blocks at one batch size."""
    slowest = max(min(session.times(rows, batch_size, WARM_UP)) for session in sessions)
    affordable = int(seconds / (pairs * len(sessions) * max(slowest, 1e-6)))
    requests = min(requests, max(affordable, FEWEST_REQUESTS))
    blocks: list[list[tuple[float, ...]]] = [[] for _ in sessions]
    for pair, backwards in enumerate(_orders(pairs, random)):
        part = _part(rows, batch_size * requests, pair)
        for place in reversed(range(len(sessions))) if backwards else range(len(sessions)):
            blocks[place].append(tuple(sessions[place].times(part, batch_size, requests)))
    found: list[Blocks] = [tuple(one) for one in blocks]
    log.info("timed %d blocks of %d requests with %d rows for %d versions", pairs, requests, batch_size, len(sessions))
    return Timed(batch_size=batch_size, candidate=found[0], champion=found[1] if len(found) > 1 else None)


def _used(sessions: Sequence[Session]) -> tuple[float, float, float]:
    """Return the processor seconds that passed on all processors, those that were used, and those that the sessions used, so far."""
    total = psutil.cpu_times()
    idle = total.idle + getattr(total, "iowait", 0.0)
    own = [psutil.Process(session.pid).cpu_times() for session in sessions]
    guests = getattr(total, "guest", 0.0) + getattr(total, "guest_nice", 0.0)  # counted within user and nice already
    return sum(total) - guests, sum(total) - guests - idle, sum(one.user + one.system for one in own)


def _others(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Return the share of all processors that neither idled nor worked for the sessions."""
    passed, used, own = (late - early for early, late in zip(before, after, strict=True))
    return min(max((used - own) / passed, 0.0), 1.0) if passed > 0 else 0.0


def _orders(pairs: int, random: Random) -> list[bool]:
    """Return for each pair whether the champion goes first: in half of them, in random order."""
    orders = [place % 2 == 0 for place in range(pairs)]
    random.shuffle(orders)
    return orders


def _part(rows: pd.DataFrame, count: int, number: int) -> pd.DataFrame:
    """Return the rows of block `number`: the next `count`, from the beginning again at the end."""
    return rows.iloc[[place % len(rows) for place in range(number * count, (number + 1) * count)]]
