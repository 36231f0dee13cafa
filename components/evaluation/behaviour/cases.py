"""Make behaviour cases from test rows and a user's cases; the same seed gives the same cases."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random

import pandas as pd

from components.artifacts.behaviour import Case
from components.evaluation.behaviour.perturbations import PADDING, PERTURBATIONS, Perturbation, pad_with, replace_words
from components.evaluation.behaviour.user_cases import UserCases


def make_cases(
    rows: pd.DataFrame,
    user_cases: UserCases | None = None,
    *,
    kinds: Sequence[str] = tuple(PERTURBATIONS),
    count: int = 100,
    seed: int = 0,
    padding: tuple[str, ...] = PADDING,
) -> tuple[list[Case], list[str]]:
    """Return the cases, and notes on perturbations without cases.

    For each of `kinds`, and for each word replacement of `user_cases`, perturbs `count` of the test `rows` (id, group, text), from as
    many groups as possible, because rows of one group are dependent. Rows that stay unchanged do not count. The other cases of
    `user_cases` are added unchanged.
    """
    perturbations: dict[str, Perturbation] = {**PERTURBATIONS, "padding": pad_with(padding)}
    ordered = _groups_first(rows, seed)
    cases, notes = [], []
    for kind in kinds:
        perturbed = list(_perturbed(ordered, kind, kind, perturbations[kind], count, seed))
        cases += perturbed
        notes += [] if perturbed else [f"{kind}: no test row can be perturbed"]
    if user_cases is not None:
        for number, case in enumerate(user_cases.invariance, 1):
            name = case.name or f"invariance case {number}"
            if case.replace:
                perturbed = list(_perturbed(ordered, "invariance", name, replace_words(case.replace), count, seed))
                notes += [] if perturbed else [f"{name}: no test row contains {' or '.join(repr(old) for old, _ in case.replace)}"]
                cases += perturbed
            else:
                group, changed = f"written: invariance case {number}", str(case.changed)
                cases.append(Case(kind="invariance", name=name, group=group, text=case.text, changed=changed))
        cases += _labelled(user_cases)
    return cases, notes


def _groups_first(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows in random order, the first of every group before the second of any."""
    shuffled = rows.sort_values("id", kind="stable").sample(frac=1, random_state=seed)
    rank = shuffled.groupby("group").cumcount()
    return shuffled.iloc[rank.argsort(kind="stable")]


def _perturbed(rows: pd.DataFrame, kind: str, name: str, perturb: Perturbation, count: int, seed: int) -> Iterator[Case]:
    """Yield cases of the first `count` rows that `perturb` changes."""
    made = 0
    for row, group, text in zip(rows["id"], rows["group"], rows["text"], strict=True):
        if made == count:
            return
        changed = perturb(text, Random(f"{seed} {name} {row}"))  # seeded by row: other rows do not change a case
        if changed not in (text, "") and not changed.isspace():
            made += 1
            yield Case(kind=kind, name=name, group=str(group), text=text, changed=changed)


def _labelled(user_cases: UserCases) -> Iterator[Case]:
    """Yield the cases with a label; each is a separate group."""
    for number, case in enumerate(user_cases.directional, 1):
        name = f"directional case {number}"
        fields: Mapping[str, object] = case.model_dump(include={"text", "changed", "label", "must", "by"})
        yield Case.model_validate({"kind": "directional", "name": case.name or name, "group": f"written: {name}", **fields})
    for number, known in enumerate(user_cases.minimum_functionality, 1):
        name = f"minimum_functionality case {number}"
        names = {"name": known.name or name, "group": f"written: {name}"}
        yield Case(kind="minimum_functionality", **names, text=None, changed=known.text, label=known.label)
