"""`models/tuned`: the settings chosen by the search, and details of the best trial."""

from components.artifacts.base import Artifact


class TunedSettings(Artifact):
    """The tuned fields of `train`; without counts and times, so that equal settings give equal bytes."""

    FILE = "settings.json"

    settings: dict[str, float | int | str | bool | None]


class BestTrial(Artifact):
    """The best trial of a study; `settings` as in `TunedSettings`, `carried` counts trials of earlier searches."""

    FILE = "best.json"

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
