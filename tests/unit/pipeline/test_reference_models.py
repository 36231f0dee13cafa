"""The reference models of a candidate follow from the ledger."""

from dataclasses import replace

from flows.pipeline.reference_models import ReferenceModels, reference_models
from tests.support.ledger_entries import entry


def numbers(models: ReferenceModels) -> tuple[int | None, int | None]:
    return (models.champion.version if models.champion else None, models.best_champion.version if models.best_champion else None)


def test_no_reference_without_a_champion():
    assert numbers(reference_models([], "k9")) == (None, None)


def test_candidate_is_compared_with_champion_and_best():
    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 1, sequence=2)], "k9")) == (2, 1)


def test_best_champion_is_compared_once():
    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 2, sequence=2)], "k9")) == (2, None)


def test_champion_is_compared_with_its_predecessor():
    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 1, sequence=2)], "k2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, sequence=1)], "k1")) == (None, None)


def test_rolled_back_version_is_not_a_reference():
    rolled_back = [entry(1, 1, sequence=1), entry(2, 2, sequence=2), entry(1, 1, "rolled back", sequence=3)]

    assert numbers(reference_models(rolled_back, "k9")) == (1, None)
    assert numbers(reference_models(rolled_back, "k1")) == (None, None)
    assert numbers(reference_models(rolled_back, "k2")) == (1, None)


def test_candidate_is_not_its_own_best_champion():
    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 1, sequence=2)], "k1")) == (2, None)


def test_reregistered_champion_is_not_its_own_reference():
    again = replace(entry(3, 3, "adopted", sequence=3), key="k2")

    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 2, sequence=2), again], "k2")) == (1, None)
    assert numbers(reference_models([entry(1, 1, sequence=1), entry(2, 2, sequence=2), again], "k9")) == (3, None)


def test_earlier_champions_are_listed_newest_first():
    entries = [entry(1, 1, sequence=1), entry(2, 2, sequence=2), entry(3, 3, sequence=3), entry(1, 1, "rolled back", sequence=4)]

    assert [past.version for past in reference_models(entries, "k9").before] == [3, 2]
    assert [past.version for past in reference_models(entries, "k3").before] == [2]
    assert [past.version for past in reference_models(entries, "k1").before] == [3, 2]
    assert reference_models([entry(1, 1, sequence=1)], "k9").before == ()
