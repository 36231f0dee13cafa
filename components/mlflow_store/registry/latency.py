"""Measure the latency and memory of versions: candidate and champion alternate block by block, so that a slow phase affects both.

Two runs one after the other call equal versions different in 80 % of cases; paired blocks in random order do not (docs/log.md).
"""

import logging
from collections.abc import Sequence
from random import Random

import pandas as pd
import psutil

from components.artifacts.cost import Blocks, Cost, Timed, Weight
from components.mlflow_store.registry.package import base_bytes, size_of
from components.mlflow_store.registry.verify import checked_package, registered_version
from components.mlflow_store.registry.worker_client import Session

log = logging.getLogger(__name__)

FEWEST_REQUESTS = 2
WARM_UP = 3  # requests; the first ones of a size also allocate memory and choose kernels by shape


def package_bytes(uri: str, name: str, number: int) -> int:
    """Check a version's package and return its size in bytes, including the base that an adapter requires.

    Raises:
        NotFound: the version does not exist.
        BadModel: the package differs from the registered one.
    """
    folder = checked_package(uri, registered_version(uri, name, number))
    return size_of(folder) + base_bytes(folder)


def measure(
    candidate: Session,
    champion: Session | None,
    rows: pd.DataFrame,
    *,
    sizes: tuple[int, int | None],
    batch_sizes: Sequence[int] = (1, 32),
    pairs: int = 20,
    requests: int = 10,
    seconds: float = 20.0,
    seed: int = 0,
) -> Cost:
    """Time both versions over `pairs` pairs of blocks in random order at each batch size, after a warm-up.

    Both versions of a pair get the same `rows`, which are cycled through. A block has `requests` requests, but fewer (at least 2) if all
    blocks of a batch size would exceed their share of `seconds`. `sizes` are the package sizes in bytes, candidate first.

    Raises:
        BadModel, Unavailable, Cancelled: a version could not be queried.
    """
    sessions = [candidate] if champion is None else [candidate, champion]
    random = Random(seed)
    before = _cpu_times(sessions)
    timed = tuple(_timed(sessions, rows, batch, pairs, requests, seconds / len(batch_sizes), random) for batch in batch_sizes)
    others = _other_load(before, _cpu_times(sessions))
    weights = [
        Weight(package_bytes=size or 0, peak_memory_mib=session.peak_memory()) for session, size in zip(sessions, sizes, strict=False)
    ]
    return Cost(timed=timed, candidate=weights[0], champion=weights[1] if champion is not None else None, others=others)


def _timed(
    sessions: Sequence[Session], rows: pd.DataFrame, batch_size: int, pairs: int, requests: int, seconds: float, random: Random
) -> Timed:
    """Time each session over `pairs` blocks at one batch size."""
    slowest = max(min(session.times(rows, batch_size, WARM_UP)) for session in sessions)
    affordable = int(seconds / (pairs * len(sessions) * max(slowest, 1e-6)))
    requests = min(requests, max(affordable, FEWEST_REQUESTS))
    blocks: list[list[tuple[float, ...]]] = [[] for _ in sessions]
    for pair, champion_first in enumerate(_orders(pairs, random)):
        part = _block_rows(rows, batch_size * requests, pair)
        for index in reversed(range(len(sessions))) if champion_first else range(len(sessions)):
            blocks[index].append(tuple(sessions[index].times(part, batch_size, requests)))
    timings: list[Blocks] = [tuple(block) for block in blocks]
    log.info("timed %d blocks of %d requests with %d rows for %d versions", pairs, requests, batch_size, len(sessions))
    return Timed(batch_size=batch_size, candidate=timings[0], champion=timings[1] if len(timings) > 1 else None)


def _cpu_times(sessions: Sequence[Session]) -> tuple[float, float, float]:
    """Return the CPU seconds so far: elapsed over all cores, used by all processes, and used by the sessions."""
    total = psutil.cpu_times()
    idle = total.idle + getattr(total, "iowait", 0.0)
    own = [psutil.Process(session.pid).cpu_times() for session in sessions]
    guests = getattr(total, "guest", 0.0) + getattr(total, "guest_nice", 0.0)  # already included in user and nice
    return sum(total) - guests, sum(total) - guests - idle, sum(times.user + times.system for times in own)


def _other_load(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Return the share of CPU time that was used by other processes."""
    elapsed, used, own = (end - start for start, end in zip(before, after, strict=True))
    return min(max((used - own) / elapsed, 0.0), 1.0) if elapsed > 0 else 0.0


def _orders(pairs: int, random: Random) -> list[bool]:
    """Return for each pair whether the champion goes first: in half of them, in random order."""
    orders = [index % 2 == 0 for index in range(pairs)]
    random.shuffle(orders)
    return orders


def _block_rows(rows: pd.DataFrame, count: int, number: int) -> pd.DataFrame:
    """Return the `count` rows of block `number`, cycling through `rows`."""
    return rows.iloc[[index % len(rows) for index in range(number * count, (number + 1) * count)]]
