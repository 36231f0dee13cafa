"""The warm start of an automatic search from the studies of earlier searches."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from components.training.tune.auto.earlier import Previous, SearchContext, remember, warm_start
from components.training.tune.auto.portfolio import Portfolio
from components.training.tune.auto.trials import REQUESTED
from components.training.tune.settings import Dimension
from components.training.tune.storage import open_studies

SPACE = {"learning_rate": Dimension(type="float", low=1e-4, high=1e-2, log=True)}
PORTFOLIO = Portfolio((), (), SPACE, {})
WINNER = {"base": "model", "method": "full", "learning_rate": 2e-3}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETUNE_VAR", raising=False)


def context(**changes: Any) -> SearchContext:
    values: dict[str, Any] = {"context": "context", "scope": "scope", "bases": {"model": "digest"}, "rows": ("a", "b")}
    return SearchContext(**values | changes)


def search_before(*rates: float, **attributes: Any) -> None:
    """Store the study of an earlier search: a training for each learning rate, and the winner."""
    with open_studies().locked("old") as storage:
        study = optuna.create_study(study_name="old", storage=storage, direction="maximize")
        warm_start(study, context(), PORTFOLIO)
        for rate in rates:
            configuration = {"base": "model", "method": "full", "learning_rate": rate}
            distribution = optuna.distributions.FloatDistribution(1e-6, 1.0, log=True)
            own = {"settings": configuration, REQUESTED: configuration, "ended at": 9.0, **attributes}
            study.add_trial(
                create_trial(value=0.5, params={"learning_rate": rate}, distributions={"learning_rate": distribution}, user_attrs=own)
            )
        remember(study, WINNER)


def start(target: SearchContext) -> tuple[list[optuna.trial.FrozenTrial], Previous | None]:
    """Start a search twice, as after a kill; return its trials and the earlier winner."""
    with open_studies().locked("new") as storage:
        study = optuna.create_study(study_name="new", storage=storage, direction="maximize")
        warm_start(study, target, PORTFOLIO)
        return study.trials, warm_start(study, target, PORTFOLIO)


def test_comparable_trials_are_carried_over_once() -> None:
    search_before(1e-3, 1e-3, 2e-3)
    trials, previous = start(context())

    assert [trial.params for trial in trials] == [{"learning_rate": 1e-3}, {"learning_rate": 2e-3}]
    assert {(trial.value, trial.user_attrs["carried"], trial.user_attrs["ended at"]) for trial in trials} == {(0.5, "old", 0.0)}
    assert previous == Previous(WINNER, 0.0)


def test_value_outside_the_space_is_not_carried_over() -> None:
    search_before(0.1, 1e-3)

    assert [trial.params["learning_rate"] for trial in start(context())[0]] == [1e-3]


def test_weight_average_is_not_carried_over() -> None:
    search_before(1e-3, soup=[])

    assert start(context())[0] == []


def test_trial_of_another_base_is_not_carried_over() -> None:
    search_before(1e-3)

    assert start(context(bases={"model": "another"})) == ([], Previous(WINNER, 1.0))


def test_other_data_only_give_the_winner() -> None:
    search_before(1e-3)

    assert start(context(context="other data", rows=("a", "c"))) == ([], Previous(WINNER, pytest.approx(2 / 3)))


def test_other_scope_gives_nothing() -> None:
    search_before(1e-3)

    assert start(context(scope="another")) == ([], None)
