"""`models/tuned/best.json`: the settings that the search chose."""

from typing import ClassVar

from components.artifacts.base import Artifact


class BestTrial(Artifact):
    """The best trial of a study; `settings` are the values of the fields that `train` leaves to the search."""

    FILE: ClassVar[str] = "best.json"

    study: str
    number: int
    metric: str
    value: float
    settings: dict[str, float | int | str | bool]
    complete: int
    pruned: int
    failed: int
    seconds: float
    importance: dict[str, float]
    stopped_by: str
