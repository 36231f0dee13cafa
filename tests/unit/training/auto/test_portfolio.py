"""From the task's portfolio, the base models and params.yaml to a queue and a search space."""

import numpy as np
import pytest

from components.core.errors import BadParams
from components.model import tasks
from components.training.trainer import TrainSection, check_fields
from components.training.tune.auto.portfolio import FEWEST_STEPS, build, describe
from components.training.tune.settings import CandidateChoices

TASK = tasks.load("text_classification", {})


def made(train=None, choices=None, bases=("model",), rows=5_000, options=None, task=TASK):
    section = TrainSection.parse(train or {}, "train")
    return build(task, options or {}, section, CandidateChoices.parse(choices or {}, "tune.candidates"), bases, rows)


def test_every_base_is_probed_and_trained():
    portfolio = made(bases=("model", "small"))

    for queue in (portfolio.probes, portfolio.queue):
        assert {configuration["base"] for configuration in queue} == {"model", "small"}
    assert portfolio.space["base"].choices == ("model", "small")


def test_small_data_get_more_epochs():
    many, few = (made(rows=rows).queue[0] for rows in (20_000, 250))

    assert few["epochs"] * -(-250 // few["batch_size"]) >= FEWEST_STEPS
    assert few["epochs"] > many["epochs"]


def test_stated_fields_are_kept():
    portfolio = made({"learning_rate": 5e-5, "epochs": 2})

    assert {(c["learning_rate"], c["epochs"]) for c in portfolio.queue} == {(5e-5, 2)}


def test_stated_options_are_kept():
    portfolio = made(options={"pooling": "cls"})

    assert {c["task_options.pooling"] for c in (*portfolio.probes, *portfolio.queue)} == {"cls"}


def test_methods_limit_the_portfolio():
    portfolio = made(choices={"methods": ["lora"]})

    assert {c["method"] for c in portfolio.queue} == {"lora"}
    assert not portfolio.probes


def test_portfolio_lies_in_the_space():
    portfolio = made(bases=("model", "small"), rows=300)

    for configuration in portfolio.queue:
        for name, dimension in portfolio.space.items():
            assert not dimension.active(configuration) or dimension.contains(configuration.get(name, portfolio.defaults.get(name))), name


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bases": ["smal"]}, "tune.candidates.bases: 'smal' is not known.*small"),
        ({"methods": ["lore"]}, "tune.candidates.methods: 'lore'.*lora"),
    ],
)
def test_unknown_choice_is_named(choices, message):
    with pytest.raises(BadParams, match=message):
        made(choices=choices, bases=("model", "small"))


def test_nothing_to_try_is_an_error():
    words = tasks.load("masked_lm", {})
    with pytest.raises(BadParams, match=r"has nothing to try: .*has full, lora; change tune\.candidates\.methods"):
        made(choices={"methods": ["freeze"]}, task=words)
    with pytest.raises(BadParams, match=r"train\.method is freeze, and the task's portfolio has full"):
        made({"method": "freeze"}, task=words)
    with pytest.raises(BadParams, match=r"train\.method is lora, and tune\.candidates\.methods is \[probe\]"):
        made({"method": "lora"}, choices={"methods": ["probe"]})


def test_task_without_portfolio_is_named():
    class Task(type(TASK)):
        portfolio = ()

    with pytest.raises(BadParams, match=r"the task has no portfolio .*set tune\.strategy search"):
        made(task=Task(TASK.options))


@pytest.mark.parametrize("name", tasks.available())
def test_portfolio_of_a_task_can_be_trained(name):
    task = tasks.load(name, {})
    portfolio = made(task=task)

    assert portfolio.queue
    for configuration in (*portfolio.probes, *portfolio.queue):
        fields = {field: value for field, value in configuration.items() if not field.startswith("task_options.")}
        settings = TrainSection.parse({}, "train").settings(fields)
        check_fields(settings, task.unsupported_settings)


def test_near_candidates_stay_in_the_space():
    portfolio = made({"batch_size": 32})
    lora = next(c for c in portfolio.queue if c["method"] == "lora")
    near = [portfolio.near(lora, np.random.default_rng(number)) for number in range(200)]

    assert {(c["method"], c["batch_size"]) for c in near} == {("lora", 32)}
    assert all(portfolio.space[name].contains(c.get(name, portfolio.defaults[name])) for c in near for name in portfolio.active(c))
    assert len({c["learning_rate"] for c in near}) > 150
    assert 10 < sum("task_options.class_weights" in c for c in near) < 60


def test_near_candidates_are_mostly_alike():
    portfolio = made()
    first = dict(portfolio.queue[0])
    rates = [portfolio.near(first, np.random.default_rng(number))["learning_rate"] for number in range(200)]

    assert 0.4 < np.std(np.log(rates)) < 0.6
    assert portfolio.near(first, np.random.default_rng(1)) == portfolio.near(first, np.random.default_rng(1))


def test_options_that_a_kind_refuses_are_left_out():
    options = {"kind": "regression"}
    portfolio = made(options=options, task=tasks.load("text_classification", options))

    assert portfolio.queue
    assert all("task_options.class_weights" not in configuration for configuration in portfolio.queue)


def test_names_are_unique():
    portfolio = made(bases=("model", "small"))
    names = [describe(configuration, 2) for configuration in (*portfolio.probes, *portfolio.queue)]

    assert len(set(names)) == len(names)
