"""Weights of classes in the loss, by which a rare one counts as much as a common one."""

from collections.abc import Mapping, Sequence

from components.core.errors import BadParams


def balanced(counts: Mapping[str, int]) -> dict[str, float]:
    """Return n / (k count) for each of k labels with rows, so that the mean over the n rows is 1 (King & Zeng, 2001; as scikit-learn)."""
    present = {label: count for label, count in counts.items() if count}
    return {label: round(sum(present.values()) / (len(present) * count), 6) for label, count in sorted(present.items())}


def check_named(weights: Mapping[str, float], labels: Sequence[str]) -> None:
    """Check that every weight is of a label.

    Raises:
        BadParams: with those that are not.
    """
    if strange := sorted(set(weights) - set(labels)):
        known = ", ".join(labels)
        raise BadParams(f"params.yaml: task_options.class_weights names {', '.join(map(repr, strange))}; the training rows have: {known}")


def in_order(weights: object, labels: Sequence[str]) -> list[float] | None:
    """Return the weight of each label, 1 for one that is not named; None where there are no weights."""
    return [float(weights.get(label, 1.0)) for label in labels] if isinstance(weights, Mapping) else None
