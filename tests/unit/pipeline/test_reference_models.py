"""The reference models of a candidate follow from the ledger."""

from dataclasses import replace
from datetime import UTC, datetime

from components.ledger import Action, Entry
from flows.pipeline.reference_models import ReferenceModels, reference_models


def entry(sequence: int, version: int, anchor: int, action: Action = "promoted", previous: int | None = None) -> Entry:
    return Entry(
        model="m",
        sequence=sequence,
        at=datetime(2026, 11, sequence, tzinfo=UTC),
        action=action,
        version=version,
        key=f"key-{version}",
        previous=previous,
        anchor=anchor,
        who="t",
        why="t",
    )


def numbers(models: ReferenceModels) -> tuple[int | None, int | None]:
    return (models.champion.version if models.champion else None, models.anchor.version if models.anchor else None)


def test_no_reference_without_a_champion():
    assert numbers(reference_models([], "key-9")) == (None, None)


def test_candidate_is_compared_with_champion_and_best():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-9")) == (2, 1)


def test_best_champion_is_compared_once():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2)], "key-9")) == (2, None)


def test_champion_is_compared_with_its_predecessor():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, 1)], "key-1")) == (None, None)


def test_rolled_back_version_is_not_a_reference():
    rolled_back = [entry(1, 1, 1), entry(2, 2, 2), entry(3, 1, 1, "rolled back")]

    assert numbers(reference_models(rolled_back, "key-9")) == (1, None)
    assert numbers(reference_models(rolled_back, "key-1")) == (None, None)
    assert numbers(reference_models(rolled_back, "key-2")) == (1, None)


def test_candidate_is_not_its_own_anchor():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-1")) == (2, None)


def test_reregistered_champion_is_not_its_own_reference():
    again = replace(entry(3, 3, 3, "adopted"), key="key-2")

    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2), again], "key-2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2), again], "key-9")) == (3, None)


def test_earlier_champions_are_listed_newest_first():
    entries = [entry(1, 1, 1), entry(2, 2, 2), entry(3, 3, 3), entry(4, 1, 1, "rolled back")]

    assert [past.version for past in reference_models(entries, "key-9").before] == [3, 2]
    assert [past.version for past in reference_models(entries, "key-3").before] == [2]
    assert [past.version for past in reference_models(entries, "key-1").before] == [3, 2]
    assert reference_models([entry(1, 1, 1)], "key-9").before == ()
