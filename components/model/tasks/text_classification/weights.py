"""Class weights of the loss."""

from collections.abc import Mapping, Sequence

from components.core.errors import BadParams


def balanced(counts: Mapping[str, int]) -> dict[str, float]:
    """Return n / (k * count) per label, with mean 1 over the n rows (King & Zeng, 2001; same as scikit-learn)."""
    present = {label: count for label, count in counts.items() if count}
    return {label: round(sum(present.values()) / (len(present) * count), 6) for label, count in sorted(present.items())}


def check_named(weights: Mapping[str, float], labels: Sequence[str]) -> None:
    """Check that all weights belong to known labels.

    Raises:
        BadParams: a weight names an unknown label.
    """
    if unknown := sorted(set(weights) - set(labels)):
        names = ", ".join(map(repr, unknown))
        raise BadParams(f"params.yaml: task_options.class_weights has unknown labels {names}; the training rows have: {', '.join(labels)}")


def in_order(weights: object, labels: Sequence[str]) -> list[float] | None:
    """Return the weight of each label, 1 if it is not listed; None if there are no weights."""
    return [float(weights.get(label, 1.0)) for label in labels] if isinstance(weights, Mapping) else None
