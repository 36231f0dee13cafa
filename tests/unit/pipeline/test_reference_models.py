"""Whom a candidate is held against follows from the ledger alone."""

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


def numbers(found: ReferenceModels) -> tuple[int | None, int | None]:
    return (found.champion.version if found.champion else None, found.anchor.version if found.anchor else None)


def test_without_a_champion_there_is_nobody():
    assert numbers(reference_models([], "key-9")) == (None, None)


def test_a_new_candidate_meets_the_champion_and_the_best_so_far():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-9")) == (2, 1)


def test_a_champion_that_is_the_best_so_far_is_met_once():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2)], "key-9")) == (2, None)


def test_the_champion_itself_is_judged_against_whom_it_replaced():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, 1)], "key-1")) == (None, None)


def test_who_was_rolled_back_from_is_no_opponent():
    gone_back = [entry(1, 1, 1), entry(2, 2, 2), entry(3, 1, 1, "rolled back")]

    assert numbers(reference_models(gone_back, "key-9")) == (1, None)
    assert numbers(reference_models(gone_back, "key-1")) == (None, None)
    assert numbers(reference_models(gone_back, "key-2")) == (1, None)


def test_a_candidate_that_once_was_the_best_is_not_its_own_anchor():
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 1)], "key-1")) == (2, None)


def test_a_champion_that_was_registered_again_is_not_its_own_opponent():
    again = replace(entry(3, 3, 3, "adopted"), key="key-2")

    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2), again], "key-2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, 1), entry(2, 2, 2), again], "key-9")) == (3, None)


def test_all_other_champions_of_the_past_are_known_newest_first():
    """Version 2 was rolled back from, and version 1 is champion again: whoever came from version 2 has seen what it saw."""
    entries = [entry(1, 1, 1), entry(2, 2, 2), entry(3, 3, 3), entry(4, 1, 1, "rolled back")]

    assert [one.version for one in reference_models(entries, "key-9").before] == [3, 2]
    assert [one.version for one in reference_models(entries, "key-3").before] == [2]
    assert [one.version for one in reference_models(entries, "key-1").before] == [3, 2]
    assert reference_models([entry(1, 1, 1)], "key-9").before == ()
