"""`models/tuned`: what the search chose, alone and with all that is known about it."""

from typing import ClassVar

from components.artifacts.base import Artifact


class TunedSettings(Artifact):
    """The values of the fields that `train` leaves to the search; no count and no time, so that equal settings are equal bytes."""

    FILE: ClassVar[str] = "settings.json"

    settings: dict[str, float | int | str | bool | None]


class BestTrial(Artifact):
    """The best trial of a study; `settings` are what `TunedSettings` hands to `train`, `carried` counts the trials of earlier searches."""

    FILE: ClassVar[str] = "best.json"

    study: str
    number: int
    metric: str
    value: float
    settings: dict[str, float | int | str | bool | None]
    complete: int
    pruned: int
    failed: int
    seconds: float
    importance: dict[str, float]
    stopped_by: str
    carried: int = 0
