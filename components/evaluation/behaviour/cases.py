"""From test rows and what a user wrote to the cases that are tried: pure, the same for the same seed."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

import pandas as pd

from components.artifacts.behaviour import Case
from components.evaluation.behaviour.perturbations import KINDS, PADDING, Change, pad_with, replace_words
from components.evaluation.behaviour.user_cases import Written


def make_cases(
    rows: pd.DataFrame,
    written: Written | None = None,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    count: int = 100,
    seed: int = 0,
    padding: tuple[str, ...] = PADDING,
) -> tuple[list[Case], list[str]]:
    """Return the cases, and notes on those that could not be made.

    Of each of `kinds`, `count` of the test `rows` (id, group, text) are changed: of as many groups as there are, for rows of one group
    would depend on each other. A row that a change leaves as it is does not count. So are the invariances that `written` replaces words
    by; its other cases follow as they stand.
    """
    changes: dict[str, Change] = {**KINDS, "padding": pad_with(padding)}
    ordered = _groups_first(rows, seed)
    cases, notes = [], []
    for kind in kinds:
        found = list(_changed(ordered, kind, kind, changes[kind], count, seed))
        cases += found
        notes += [] if found else [f"{kind}: no test row has anything to change"]
    if written is not None:
        for number, one in enumerate(written.invariance, 1):
            name = one.name or f"invariance case {number}"
            if one.replace:
                found = list(_changed(ordered, "invariance", name, replace_words(one.replace), count, seed))
                notes += [] if found else [f"{name}: no test row holds {' or '.join(repr(old) for old, _ in one.replace)}"]
                cases += found
            else:
                cases.append(
                    Case(kind="invariance", name=name, group=f"written: invariance case {number}", text=one.text, changed=str(one.changed))
                )
        cases += _expected(written)
    return cases, notes


def _groups_first(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows in random order, the first of every group before the second of any."""
    shuffled = rows.sort_values("id", kind="stable").sample(frac=1, random_state=seed)
    turn = shuffled.groupby("group").cumcount()
    return shuffled.iloc[turn.argsort(kind="stable")]


def _changed(rows: pd.DataFrame, kind: str, name: str, change: Change, count: int, seed: int) -> Iterator[Case]:
    """Give the first `count` rows that `change` alters."""
    made = 0
    for row, group, text in zip(rows["id"], rows["group"], rows["text"], strict=True):
        if made == count:
            return
        changed = change(text, Random(f"{seed} {name} {row}"))  # a case stays what it is when other rows come or go
        if changed not in (text, "") and not changed.isspace():
            made += 1
            yield Case(kind=kind, name=name, group=str(group), text=text, changed=changed)


def _expected(written: Written) -> Iterator[Case]:
    """Give the cases that name a label; each is a group of its own."""
    for number, one in enumerate(written.directional, 1):
        name = one.name or f"directional case {number}"
        rest: Mapping[str, object] = {"text": one.text, "changed": one.changed, "label": one.label, "must": one.must, "by": one.by}
        yield Case.model_validate({"kind": "directional", "name": name, "group": f"written: directional case {number}", **rest})
    for number, known in enumerate(written.minimum_functionality, 1):
        called = f"minimum_functionality case {number}"
        known_as = {"name": known.name or called, "group": f"written: {called}"}
        yield Case(kind="minimum_functionality", **known_as, text=None, changed=known.text, label=known.label)
