"""The best champion so far changes only by a measured difference. No model is loaded here."""

from pathlib import Path

import pytest

from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.ledger import Ledger
from components.mlflow_store.registry import Decision, swap_champion
from components.mlflow_store.registry.promote import new_best_champion
from tests.support.finished import new_store
from tests.support.ledger_entries import entry
from tests.support.promotion import NAME, create_versions, ledger_of


def verdict(about: str | None = None, best: str | None = None, **differences: float | None) -> Verdict:
    """Return a verdict about champion `about` and best champion `best`, with the difference that each gate measured."""
    gates = tuple(GateResult(gate=gate, outcome=Outcome.PASS, reason="so", estimate=value) for gate, value in differences.items())
    return Verdict(key="k", candidate="c", champion=about, anchor=best, test_digest="t", outcome=Outcome.PASS, reason="so", gates=gates)


def test_first_champion_is_the_best_champion() -> None:
    assert new_best_champion([], 1, "promoted", None) == 1


@pytest.mark.parametrize(("difference", "expected"), [(0.01, 2), (0.0, 2), (-0.01, 1), (None, 1)])
def test_champion_no_worse_than_best_one_becomes_best(difference: float | None, expected: int) -> None:
    assert new_best_champion([entry(1, 1)], 2, "promoted", verdict("1", champion=difference, best_champion=None)) == expected
    later = [entry(1, 1), entry(9, 1)]
    for gate in ("best_champion", "anchor"):  # `anchor` is its name in verdicts of earlier releases
        assert new_best_champion(later, 2, "promoted", verdict("9", "1", champion=0.1, **{gate: difference})) == expected


def test_slowly_worsening_champions_keep_the_best_champion() -> None:
    entries = [entry(1, 1)]
    for number in range(2, 12):
        small_loss = verdict(str(number - 1), "1", champion=-0.015, best_champion=None if number == 2 else -0.015 * (number - 1))
        entries.append(entry(number, new_best_champion(entries, number, "promoted", small_loss), previous=number - 1))
    assert {promotion.anchor for promotion in entries} == {1}


def test_promotion_not_measured_against_best_champion_keeps_it() -> None:
    assert new_best_champion([entry(1, 1)], 2, "promoted", None) == 1
    assert new_best_champion([entry(1, 1)], 2, "promoted", verdict("8", champion=0.1)) == 1
    assert new_best_champion([entry(1, 1)], 2, "promoted", verdict(None, champion=0.1)) == 1  # it was judged before there was a champion
    assert (
        new_best_champion([entry(1, 1), entry(9, 1)], 2, "promoted", verdict("9", None, champion=-0.019)) == 1
    )  # the gate `best_champion` was off


def test_deleted_best_champion_is_replaced_by_next_champion() -> None:
    assert new_best_champion([entry(1, 1), entry(9, 1)], 2, "promoted", verdict("9", "1", champion=-0.019), deleted=True) == 2
    assert new_best_champion([entry(1, 1), entry(9, 1)], 1, "rolled back", None, deleted=True) == 1


def test_rollback_restores_best_champion_unless_rolled_back() -> None:
    entries = [entry(1, 1), entry(2, 2, previous=1), entry(3, 2, previous=2)]
    assert new_best_champion(entries, 1, "rolled back", None) == 1
    assert new_best_champion(entries, 2, "rolled back", None) == 2
    entries.append(entry(2, 2, "rolled back", previous=3))
    entries.append(entry(1, 1, "rolled back", previous=2))
    assert new_best_champion(entries, 3, "rolled back", None) == 3  # its best champion was 2, which was rolled back


def test_best_champion_counts_again_after_its_return() -> None:
    entries = [entry(1, 1), entry(2, 2), entry(1, 1, "rolled back", 2), entry(2, 2), entry(3, 2), entry(4, 2)]
    assert new_best_champion(entries, 3, "rolled back", None) == 2


@pytest.mark.slow
def test_forced_promotion_keeps_the_best_champion(tmp_path: Path) -> None:
    uri = new_store(tmp_path / "var")
    ledger, versions = Ledger(ledger_of(uri)), create_versions(uri, 1, 2, 3)
    swap_champion(uri, ledger, versions[0], Decision(None, "ada@host", "it is the first"))
    failed = verdict("1", champion=0.01).model_copy(update={"outcome": Outcome.FAIL})  # by another gate

    forced = swap_champion(uri, ledger, versions[1], Decision("any", "ada@host", "needed today", forced=True), failed).entry
    assert (forced.version, forced.anchor, forced.outcome) == (2, 1, "FAIL")
    passed = swap_champion(
        uri, ledger, versions[2], Decision(2, "retune run", "it passed"), verdict("2", "1", champion=0.01, best_champion=0.0)
    ).entry
    assert (passed.anchor, ledger.head(NAME)) == (3, passed)
