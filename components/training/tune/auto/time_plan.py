"""The time of an automatic search: the seconds that trials may use, and the epochs that fit into them."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from components.core.errors import BadParams
from components.training.tune.auto import finals
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.portfolio import PROBE, Configuration
from components.training.tune.auto.speed import Speed
from components.training.tune.auto.trials import DONE, FEWEST_STEPS, SearchInputs
from components.training.tune.study import SECONDS, SETTINGS

_FOR_HOLDOUTS, _FOR_SELECTION = 0.35, 0.03  # parts of the budget that trials leave
_SHORTENED = 0.5  # a candidate is tried with fewer epochs only down to this part


class TimePlan:
    """Divides the budget between the trials and the selection, with the estimated seconds of each candidate."""

    def __init__(self, inputs: SearchInputs, budget: Budget, speeds: Mapping[str, Speed]) -> None:
        self._inputs, self._budget, self._speeds = inputs, budget, speeds
        self._by_holdouts = finals.uses_holdouts(inputs)

    def left(self, complete: Sequence[FrozenTrial], planned: float = 0.0) -> float:
        """Return the seconds that trials may still use after the `complete` ones, one of `planned` seconds among them."""
        return self._budget.left() - self._reserve(complete, planned)

    def _reserve(self, complete: Sequence[FrozenTrial], planned: float) -> float:
        """Return the seconds that the selection needs: hold-outs of the best and of a planned trial, if they fit, or a bootstrap."""
        most, least = _FOR_HOLDOUTS * self._budget.seconds, _FOR_SELECTION * self._budget.seconds
        needed = finals.seconds_of_holdouts(complete) + finals.FEWEST * planned
        return least if not self._by_holdouts or needed > most else most

    def seconds(self, configuration: Configuration) -> float:
        """Return the expected seconds of a configuration."""
        candidate = self._inputs.resolve(configuration)
        return self._speeds[candidate.settings.base].seconds(candidate.settings)

    def cost(self, configuration: Configuration) -> str:
        """Return the expected seconds of a configuration for a message; nothing is measured."""
        settings = self._inputs.resolve(configuration).settings
        speed = self._speeds[settings.base]
        return f"{'about' if speed.is_known(settings) else 'at least'} {speed.least_seconds(settings):.0f} s"

    def fit_epochs(self, configuration: dict[str, Any], complete: Sequence[FrozenTrial]) -> dict[str, Any] | None:
        """Return the configuration with the epochs that fit into the time after the `complete` trials; None if too few fit."""
        candidate = self._inputs.resolve(configuration)
        speed = self._speeds[candidate.settings.base]
        trained = any(trial.user_attrs[SETTINGS]["method"] != PROBE for trial in complete)
        fewest = candidate.settings.epochs * _SHORTENED if trained else self.fewest_epochs(configuration)
        left = self.left(complete)
        if left <= 0 or speed.least_seconds(candidate.settings.model_copy(update={"epochs": fewest})) > left:
            return None  # no seconds for a measurement of the speed either
        fitting = speed.epochs(candidate.settings, self.left(complete, speed.seconds(candidate.settings)))
        if fitting == candidate.settings.epochs:
            return configuration
        if "epochs" in self._inputs.train.fixed.model_fields_set or fitting < fewest:
            return None
        return {**configuration, "epochs": fitting}

    def fewest_epochs(self, configuration: Configuration) -> float:
        """Return the fewest epochs that are worth a training: one, or those of some steps if that is less."""
        settings = self._inputs.resolve(configuration).settings
        batch = settings.batch_size * settings.accumulation
        return min(1.0, settings.epochs, FEWEST_STEPS * batch / max(1, len(self._inputs.data[settings.base].train)))

    def correct(self, configuration: Configuration, trial: FrozenTrial) -> None:
        """Correct the speed by a complete training."""
        candidate, attributes = self._inputs.resolve(configuration), trial.user_attrs
        self._speeds[candidate.settings.base].correct(candidate.settings, attributes[SECONDS], float(attributes.get(DONE, 1.0)))

    def refuse_too_few_minutes(self, configurations: Sequence[Configuration]) -> None:
        """Check that the budget is enough for the cheapest of the first configurations, before one was tried.

        Raises:
            BadParams: it is too small.
        """
        costs = []
        for configuration in configurations:
            candidate = self._inputs.resolve(configuration)
            least = candidate.settings.model_copy(update={"epochs": self.fewest_epochs(configuration)})
            costs.append(self._speeds[candidate.settings.base].seconds(least))
        minutes = self._inputs.tune.minutes
        if min(costs) > minutes * 60 - self._budget.spent():
            needed = 1.2 * (min(costs) + self._budget.spent()) / 60
            raise BadParams(
                f"params.yaml: tune.minutes {minutes:g} are too few for one candidate on this machine; expected at least {needed:.1f}"
            )
        self._budget.seconds = max(self._budget.seconds, min(minutes * 60, 1.2 * (min(costs) + self._budget.spent())))
