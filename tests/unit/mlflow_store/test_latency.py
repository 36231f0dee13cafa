from pathlib import Path
from random import Random
from typing import cast

import pandas as pd
import pytest

from components.mlflow_store.registry.latency import _block_rows, _orders, _other_load, measure, package_bytes
from components.mlflow_store.registry.package import size_of
from components.mlflow_store.registry.worker_client import Session
from tests.support.registered import make_registered


class FakeSession:
    """A fake session whose requests take `seconds`; all calls are recorded in a shared list."""

    pid = 1

    def __init__(self, name: str, seconds: float, calls: list[tuple[str, tuple[str, ...], int, int]]) -> None:
        self.name, self.seconds, self.calls = name, seconds, calls

    def times(self, rows: pd.DataFrame, batch_size: int, requests: int) -> list[float]:
        self.calls.append((self.name, tuple(rows["text"]), batch_size, requests))
        return [self.seconds] * requests

    def peak_memory(self) -> float:
        return 100.0


def rows_of(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts)})


def sessions(first: float = 0.001, second: float = 0.001) -> tuple[list[tuple[str, tuple[str, ...], int, int]], Session, Session]:
    calls: list[tuple[str, tuple[str, ...], int, int]] = []
    return calls, cast(Session, FakeSession("a", first, calls)), cast(Session, FakeSession("b", second, calls))


def test_pairs_alternate_in_random_order_with_same_texts() -> None:
    calls, a, b = sessions()
    cost = measure(a, b, rows_of(*(f"text {n}" for n in range(7))), sizes=(10, 20), batch_sizes=(1, 4), pairs=20, requests=5)

    for batch, begin in ((1, 0), (4, 42)):
        blocks = calls[begin : begin + 42]
        assert [call[0] for call in blocks[:2]] == ["a", "b"]  # the warm-up
        pairs = [blocks[index : index + 2] for index in range(2, 42, 2)]
        assert all({call[0] for call in pair} == {"a", "b"} for pair in pairs)
        assert sum(pair[0][0] == "b" for pair in pairs) == 10
        assert all(pair[0][1:] == pair[1][1:] for pair in pairs)
        assert pairs[0][0][1] != pairs[1][0][1]
        assert {call[2:] for call in blocks[2:]} == {(batch, 5)}
    assert [(timed.batch_size, len(timed.candidate), len(timed.champion or ())) for timed in cost.timed] == [(1, 20, 20), (4, 20, 20)]
    assert (cost.candidate.package_bytes, cost.champion and cost.champion.package_bytes) == (10, 20)


def test_slow_version_gets_blocks_of_at_least_two_requests() -> None:
    def requests(first: float, second: float) -> int:
        calls, a, b = sessions(first, second)
        measure(a, b, rows_of("x"), sizes=(1, 1), batch_sizes=(1,), pairs=20, requests=10, seconds=2.0)
        return calls[-1][3]

    assert requests(0.004, 0.001) == 10
    assert requests(0.001, 0.010) == 5  # 2 s / (40 blocks of 10 ms)
    assert requests(1.0, 0.001) == 2


def test_candidate_without_champion_is_timed_alone() -> None:
    calls, a, _ = sessions()
    cost = measure(a, None, rows_of("x", "y"), sizes=(1, None), batch_sizes=(1,), pairs=20, requests=3)

    assert {call[0] for call in calls} == {"a"}
    assert cost.champion is None
    assert cost.timed[0].champion is None
    assert len(cost.timed[0].candidate) == 20


def test_order_is_balanced_and_seeded() -> None:
    orders = _orders(21, Random(3))

    assert orders == _orders(21, Random(3)) != _orders(21, Random(4))
    assert sum(orders) == 11
    assert _block_rows(rows_of("a", "b", "c"), 2, 1)["text"].tolist() == ["c", "a"]


def test_other_load_excludes_idle_and_own_time() -> None:
    assert _other_load((0, 0, 0), (20, 15, 10)) == 0.25
    assert _other_load((0, 0, 0), (20, 5, 10)) == 0.0  # timers of different resolution
    assert _other_load((1, 1, 1), (1, 1, 1)) == 0.0


def test_folder_size_is_the_sum_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")

    assert size_of(tmp_path) == 8


@pytest.mark.exhaustive
@pytest.mark.slow
def test_two_registered_versions_are_timed(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    uri, _ = make_registered(tmp_path, tiny_base, tickets, versions=2)
    sizes = (package_bytes(uri, "tickets", 1), package_bytes(uri, "tickets", 2))

    with Session(uri, "models:/tickets/1", 120) as candidate, Session(uri, "models:/tickets/2", 120) as champion:
        cost = measure(candidate, champion, tickets[["text"]], sizes=sizes, batch_sizes=(1, 8), requests=3, seconds=4)

    assert [timed.batch_size for timed in cost.timed] == [1, 8]
    assert all(len(timed.candidate) == len(timed.champion or ()) == 20 for timed in cost.timed)
    assert all(0 < seconds < 30 for timed in cost.timed for block in timed.candidate for seconds in block)
    assert 100_000 < cost.candidate.package_bytes < 10_000_000
    assert 100 < cost.candidate.peak_memory_mib < 4_000
    assert 0 <= (cost.others or 0) <= 1
