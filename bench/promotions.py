"""Concurrent promotions: one winner per round, and a consistent ledger, alias and registry afterwards.

`python -m bench promotions [--json FILE] [--rounds 200] [--processes 8]`. In each round every process registers a version, waits for
the others, and promotes it over the same expected champion. Registry and ledger are real SQLite files; the versions contain no model.
A wrong figure gives exit code 1.
"""

import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench._output import parser, report
from components.ledger import Ledger, StaleVerdict
from components.mlflow_store.connection import connect, ensure_experiment, store_lock
from components.mlflow_store.registry import Decision, champion, swap_champion, versions
from components.mlflow_store.registry.versions import COMPLETE, KEY, lookup
from components.mlflow_store.tracking import prepare_store

NAME = "contested"
SECONDS = 120.0  # time limit of a round


@dataclass(frozen=True)
class Attempt:
    """One process in one round: its version, and whether it became champion."""

    version: int
    won: bool
    fault: str | None


def main(argv: Sequence[str]) -> int:
    arguments = parser("promotions", __doc__)
    arguments.add_argument("--rounds", type=int, default=200)
    arguments.add_argument("--processes", type=int, default=8)
    options = arguments.parse_args(argv)
    figures = run(options.rounds, options.processes)
    report(figures, options.json)
    expected = {"rounds_with_one_winner": options.rounds, "lost_versions": 0, "ledger_gaps": 0, "alias_mismatches": 0}
    return int(any(figures[name] != value for name, value in expected.items()))


def run(rounds: int, processes: int) -> dict[str, int]:
    """Run `rounds` rounds with `processes` concurrent processes; return the figures."""
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as folder:
        uri, ledger_url = prepare_store(Path(folder)), f"sqlite:///{folder}/ledger.db"
        connect(uri).create_registered_model(NAME)
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(processes)
        pipes = [context.Pipe() for _ in range(processes)]
        workers = [context.Process(target=work, args=(uri, ledger_url, barrier, child), daemon=True) for _, child in pipes]
        for worker in workers:
            worker.start()
        try:
            return play(uri, Ledger(ledger_url), [parent for parent, _ in pipes], rounds)
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()


def play(uri: str, ledger: Ledger, workers: Sequence[Connection], rounds: int) -> dict[str, int]:
    """Run the rounds, and check the ledger and the registry after each."""
    one_winner, mismatches, registered = 0, 0, set()
    for number in range(1, rounds + 1):
        attempts = play_round(ledger, workers)
        registered |= {attempt.version for attempt in attempts}
        winners, head, alias = [attempt.version for attempt in attempts if attempt.won], ledger.head(NAME), champion(uri, NAME)
        one_winner += len(winners) == 1 and head is not None and (head.version, head.sequence) == (winners[0], number)
        mismatches += head is None or alias is None or alias.number != head.version
    sequences = [entry.sequence for entry in ledger.entries(NAME)]
    gaps = len(set(range(1, rounds + 1)) ^ set(sequences)) + len(sequences) - len(set(sequences))
    lost = registered - {version.number for version in versions(uri, NAME)}
    return {
        "rounds": rounds,
        "processes": len(workers),
        "rounds_with_one_winner": one_winner,
        "lost_versions": len(lost) + rounds * len(workers) - len(registered),
        "ledger_gaps": gaps,
        "alias_mismatches": mismatches,
    }


def play_round(ledger: Ledger, workers: Sequence[Connection]) -> list[Attempt]:
    """Send the expected champion to every process, and return the attempts.

    Raises:
        RuntimeError: a process failed with another error than StaleVerdict, or did not answer.
    """
    head = ledger.head(NAME)
    for worker in workers:
        worker.send(head.version if head else None)
    attempts: list[Attempt] = []
    for worker in workers:
        if not worker.poll(SECONDS):
            raise RuntimeError(f"a process did not answer within {SECONDS:.0f} s")
        attempts.append(worker.recv())
    if faults := [attempt.fault for attempt in attempts if attempt.fault]:
        raise RuntimeError(f"{len(faults)} processes failed, first: {faults[0]}")
    return attempts


def work(uri: str, ledger_url: str, barrier: Barrier, orders: Connection) -> None:
    """In each round: register, wait for the others, promote."""
    ledger = Ledger(ledger_url)
    run_id = ""
    while True:
        expected = orders.recv()
        run_id = run_id or start_run(uri)
        number = register(uri, run_id)
        barrier.wait(SECONDS)
        orders.send(attempt(uri, ledger, number, expected))


def start_run(uri: str) -> str:
    with store_lock(uri, f"register {NAME}"):
        client = connect(uri)
        return str(client.create_run(ensure_experiment(client, uri, NAME)).info.run_id)


def register(uri: str, run_id: str) -> int:
    """Register a version under the lock of `components.mlflow_store.registry.register`."""
    with store_lock(uri, f"register {NAME}"):
        version = connect(uri).create_model_version(NAME, "file:///nowhere", run_id, tags={KEY: f"{run_id}", COMPLETE: "true"})
    return int(version.version)


def attempt(uri: str, ledger: Ledger, number: int, expected: int | None) -> Attempt:
    version = lookup(connect(uri), NAME, number)
    assert version is not None
    try:
        promotion = swap_champion(uri, ledger, version, Decision(expected, "bench", "benchmark"))
    except StaleVerdict:
        return Attempt(number, won=False, fault=None)
    except Exception as error:
        return Attempt(number, won=False, fault=f"{type(error).__name__}: {error}")
    return Attempt(number, won=promotion.changed, fault=None)
