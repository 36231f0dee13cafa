"""Promotion and rollback: the ledger is written first, and the aliases follow it. No model is loaded here."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.core.errors import BadInput, BadModel, NotFound
from components.ledger import Ledger, StaleVerdict, chain
from components.mlflow_store.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Decision,
    Promotion,
    champion,
    champion_stack,
    reconcile,
    versions,
)
from components.mlflow_store.registry import swap_champion as swap_by
from components.mlflow_store.registry.aliases import champion_lock
from components.mlflow_store.registry.promote import rollback_target
from components.mlflow_store.registry.versions import COMPLETE, PROMOTED
from tests.support.finished import new_store
from tests.support.ledger_entries import entry
from tests.support.promotion import NAME, aliases, create_versions, ledger_of, swap


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path / "var")


@pytest.fixture
def ledger(uri: str) -> Ledger:
    return Ledger(ledger_of(uri))


@pytest.mark.slow
def test_ledger_is_written_and_aliases_follow(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    MlflowClient(uri).set_registered_model_alias(NAME, CHALLENGER, "1")

    first = swap(uri, ledger, 1, None)
    assert (first.changed, first.previous, first.entry, aliases(uri)) == (True, None, ledger.head(NAME), {CHAMPION: 1})
    assert PROMOTED in first.version.tags

    second = swap(uri, ledger, 2, 1)
    assert (second.changed, second.previous, aliases(uri)) == (True, 1, {CHAMPION: 2, PREVIOUS: 1})
    assert [(entry.version, entry.key, entry.who, entry.why) for entry in ledger.entries(NAME)] == [
        (1, "k1", "ada@host", "it is better"),
        (2, "k2", "ada@host", "it is better"),
    ]


@pytest.mark.slow
def test_verdict_about_another_champion_is_rejected(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2, 3)
    swap(uri, ledger, 1)
    swap(uri, ledger, 2)

    with pytest.raises(StaleVerdict, match="verdict is about version 1, champion is now 2: judge again"):
        swap(uri, ledger, 3, 1)
    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 2: judge again"):
        swap(uri, ledger, 3, None)
    assert (len(ledger.entries(NAME)), aliases(uri)) == (2, {CHAMPION: 2, PREVIOUS: 1})


@pytest.mark.slow
def test_promoting_the_champion_changes_nothing(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)

    assert not swap(uri, ledger, 1).changed
    assert not swap(uri, ledger, 1, None).changed
    assert len(ledger.entries(NAME)) == 1


@pytest.mark.slow
def test_promotion_killed_before_aliases_is_repaired(uri: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", interrupt)
        with pytest.raises(KeyboardInterrupt):
            swap(uri, ledger, 2)
    assert (ledger.head(NAME).version, aliases(uri)) == (2, {CHAMPION: 1})

    assert reconcile(uri, ledger_of(uri), NAME) == [
        "moved the alias previous from no version to version 1, as in the ledger",
        "moved the alias champion from version 1 to version 2, as in the ledger",
    ]
    assert aliases(uri) == {CHAMPION: 2, PREVIOUS: 1}
    assert reconcile(uri, ledger_of(uri), NAME) == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_alias_moved_in_mlflow_is_moved_back(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)
    MlflowClient(uri).set_registered_model_alias(NAME, CHAMPION, "2")

    assert reconcile(uri, ledger_of(uri), NAME) == ["moved the alias champion from version 2 to version 1, as in the ledger"]
    assert champion(uri, NAME).number == 1


def test_champions_older_than_the_ledger_are_adopted(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2, 3)
    for alias, number in ((PREVIOUS, "1"), (CHAMPION, "2")):
        MlflowClient(uri).set_registered_model_alias(NAME, alias, number)

    swap(uri, ledger, 3, 2)

    assert [(entry.action, entry.version, entry.anchor) for entry in ledger.entries(NAME)] == [
        ("adopted", 1, 1),
        ("adopted", 2, 2),
        ("promoted", 3, 2),
    ]
    assert aliases(uri) == {CHAMPION: 3, PREVIOUS: 2}


@pytest.mark.slow
def test_deleted_champion_is_reported_and_replaceable(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)
    MlflowClient(uri).delete_model_version(NAME, "1")

    assert reconcile(uri, ledger_of(uri), NAME) == [
        "the ledger's champion, version 1, was deleted from the registry: roll back or promote another one"
    ]
    (remaining,) = versions(uri, NAME)
    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 1: judge again"):
        swap_by(uri, ledger, remaining, Decision(None, "ada@host", "judged before there was a champion"))
    swap_by(uri, ledger, remaining, Decision(1, "ada@host", "judged against the deleted one, by its number"))
    head = ledger.head(NAME)
    assert (head.previous, head.anchor, aliases(uri)) == (1, 2, {CHAMPION: 2})


@pytest.mark.slow
def test_reregistered_champion_gets_its_new_number(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)
    swap(uri, ledger, 2)
    MlflowClient(uri).delete_model_version(NAME, "2")
    again = create_versions(uri, 2)[-1]
    assert (again.number, again.key) == (3, "k2")

    assert reconcile(uri, ledger_of(uri), NAME)[0] == (
        "the champion, version 2, was deleted from the registry; version 3, the same model, replaces it"
    )
    head = ledger.head(NAME)
    assert (head.action, head.version, head.key, head.anchor, aliases(uri)[CHAMPION]) == ("adopted", 3, "k2", 1, 3)
    assert reconcile(uri, ledger_of(uri), NAME) == []
    assert not swap_by(uri, ledger, again, Decision(1, "ada@host", "its old verdict")).changed


def test_killed_adoption_keeps_the_champion(uri: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    create_versions(uri, 1, 2)
    for alias, number in ((PREVIOUS, "1"), (CHAMPION, "2")):
        MlflowClient(uri).set_registered_model_alias(NAME, alias, number)
    written: list[object] = []

    def add(*arguments: object, **values: object) -> None:
        original(*arguments, **values)  # type: ignore[arg-type]
        written.append(values)
        if len(written) == 2:
            interrupt()

    original = chain.add
    with monkeypatch.context() as patched:
        patched.setattr(chain, "add", add)
        with pytest.raises(KeyboardInterrupt):
            reconcile(uri, ledger_of(uri), NAME)

    reconcile(uri, ledger_of(uri), NAME)
    assert ([entry.version for entry in ledger.entries(NAME)], aliases(uri)) == ([1, 2], {PREVIOUS: 1, CHAMPION: 2})


def test_deleting_under_the_lock_never_deletes_a_champion(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2)
    swap(uri, ledger, 1)
    stale = versions(uri, NAME)[1]
    with ThreadPoolExecutor() as pool:
        with champion_lock(uri, NAME):
            promotion = pool.submit(swap_by, uri, ledger, stale, Decision("any", "ada@host", "it is better"))
            with pytest.raises(TimeoutError):
                promotion.result(timeout=1)
            assert ledger.head(NAME).version == 1  # nothing is written while another thread holds the lock
            MlflowClient(uri).delete_model_version(NAME, "2")
        with pytest.raises(NotFound, match="tickets has no version 2"):
            promotion.result(timeout=300)
    assert (ledger.head(NAME).version, aliases(uri)) == (1, {CHAMPION: 1})


def test_replaced_or_incomplete_version_is_not_promoted(uri: str, ledger: Ledger) -> None:
    (first,) = create_versions(uri, 1)
    for version in (replace(first, key="another"), first):
        MlflowClient(uri).delete_model_version_tag(NAME, "1", COMPLETE) if version is first else None
        with pytest.raises(BadModel, match="was deleted or replaced during its verification"):
            swap_by(uri, ledger, version, Decision("any", "ada@host", "it is better"))
    assert ledger.head(NAME) is None


@pytest.mark.slow
def test_number_in_another_registry_is_another_model(uri: str, ledger: Ledger, tmp_path: Path) -> None:
    create_versions(uri, 1)
    swap(uri, ledger, 1)
    fresh = new_store(tmp_path / "fresh")
    create_versions(fresh, 7)  # its first version, of another candidate

    assert "was deleted from the registry" in reconcile(fresh, ledger_of(uri), NAME)[0]
    assert aliases(fresh) == {}
    assert swap(fresh, ledger, 1, 1).changed  # its verdict is about the number of the deleted champion
    assert ledger.head(NAME).key == "k7"


def test_unregistered_model_needs_no_correction(uri: str) -> None:
    assert reconcile(uri, ledger_of(uri), NAME) == []


@pytest.mark.slow
def test_rollback_skips_champions_that_were_rolled_back(uri: str, ledger: Ledger) -> None:
    create_versions(uri, 1, 2, 3)
    for number in (1, 2, 3):
        swap(uri, ledger, number)

    assert [roll_back(uri, ledger).version.number for _ in range(2)] == [2, 1]
    assert [(entry.action, entry.version, entry.previous) for entry in ledger.entries(NAME)[3:]] == [
        ("rolled back", 2, 3),
        ("rolled back", 1, 2),
    ]
    assert aliases(uri) == {CHAMPION: 1, PREVIOUS: 2}
    with pytest.raises(NotFound, match="no earlier champion; choose a version with `retune rollback tickets --to VERSION`"):
        roll_back(uri, ledger)
    assert roll_back(uri, ledger, to=3).version.number == 3


def roll_back(uri: str, ledger: Ledger, to: int | None = None) -> Promotion:
    """Roll back as `rollback` does, without loading the version."""
    known, entries = {version.number: version for version in versions(uri, NAME)}, ledger.entries(NAME)
    number = rollback_target(NAME, entries, set(known), to)
    return swap_by(uri, ledger, known[number], Decision(entries[-1].version, "ada@host", "it answers badly", "rolled back"))


def test_rollback_skips_deleted_champions() -> None:
    assert rollback_target(NAME, [entry(1, 1), entry(2, 2), entry(3, 3)], {1, 3}, None) == 1


def test_rollback_needs_a_former_champion() -> None:
    for to in (None, 1):
        with pytest.raises(NotFound, match="has no champion yet"):
            rollback_target(NAME, [], set(), to)
    with pytest.raises(BadInput, match=r"version 2 of tickets was never champion \(champions: 1\)"):
        rollback_target(NAME, [entry(1, 1)], {1, 2}, 2)
    with pytest.raises(BadInput, match="version 1 of tickets is already the champion"):
        rollback_target(NAME, [entry(1, 1)], {1, 2}, 1)
    with pytest.raises(NotFound, match="version 1 of tickets was champion but was deleted from the registry"):
        rollback_target(NAME, [entry(1, 1), entry(2, 2)], {2}, 1)


def test_champion_stack_drops_rolled_back_champions() -> None:
    entries = [entry(1, 1), entry(2, 2), entry(3, 2), entry(2, 2, "rolled back"), entry(4, 4)]
    assert champion_stack(entries) == [1, 2, 4]
    assert champion_stack([*entries, entry(3, 2, "rolled back")]) == [1, 2, 4, 3]
    assert champion_stack([entry(3, 3), entry(4, 4), entry(3, 3), entry(5, 5), entry(3, 3, "rolled back")]) == [3, 4, 3]
