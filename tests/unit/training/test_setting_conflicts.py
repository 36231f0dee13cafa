"""Settings of `train` that exclude each other, and combinations that depend on the search and are accepted."""

import pytest

from components.core.errors import BadParams
from components.training.trainer import TrainSection


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lora_rank": 4}, "train.lora_rank: is used only if method is lora, found 4 with method full"),
        ({"frozen_layers": 2, "method": "lora"}, "train.frozen_layers: is used only if method is freeze, found 2 with method lora"),
        ({"layer_decay": 0.9, "method": "lora"}, "train.layer_decay: is used only if method is "),
        ({"l2_sp": 0.1, "method": "lora"}, "train.l2_sp: is used only if method is "),
        ({"l2_sp": 0.1, "method": "freeze", "frozen_layers": -1}, "train.l2_sp: has no effect if frozen_layers is -1"),
        ({"momentum": 0.5}, "train.momentum: is used only if optimizer is sgd, found 0.5 with optimizer adamw"),
        ({"nesterov": True, "optimizer": "sgd", "momentum": 0}, "train.nesterov: needs momentum above 0"),
        ({"schedule_power": 3}, "train.schedule_power: is used only if schedule is polynomial"),
        ({"plateau_factor": 0.1}, "train.plateau_factor: is used only if schedule is plateau"),
        ({"r_drop": 1.0, "dropout": 0}, "train.r_drop: compares two passes that differ by dropout"),
        ({"warmup": 1.5}, "train.warmup: a number of steps (1 and above) must be whole"),
        ({"swa": 0.3}, "train.swa: is used only if schedule is constant, found 0.3 with schedule linear"),
        ({"swa": 0.3, "ema": 0.9, "schedule": "constant"}, "train.swa: only one average of the weights is possible"),
        ({"unfreeze_every": 1}, "train.unfreeze_every: is used only if method is freeze"),
        ({"unfreeze_every": 3, "method": "freeze"}, "train.unfreeze_every: no layer is unfrozen within 3 epochs, found 3"),
        (
            {"method": "freeze", "frozen_layers": -1, "unfreeze_every": 0.5, "contrastive_start": 1},
            "train.contrastive_start: has no effect before unfreeze_every lets the first layer learn",
        ),
        ({"dropout": 1.0}, "train.dropout: input should be less than 1"),
    ],
)
def test_unused_setting_is_refused(section, message):
    with pytest.raises(BadParams) as caught:
        TrainSection.parse(section, "train")

    assert str(caught.value).startswith(f"params.yaml: {message}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"method": "tuned", "lora_rank": 4, "frozen_layers": 1},
        {"method": "tuned", "lora_rank": "tuned"},
        {"optimizer": "tuned", "momentum": 0.5},
        {"optimizer": "sgd", "nesterov": True, "momentum": "tuned"},
        {"method": "lora", "lora_rank": 4, "r_drop": 1.0},
        {"method": "freeze", "frozen_layers": -1, "unfreeze_every": 1, "l2_sp": 0.1, "layer_decay": 0.9},
    ],
)
def test_conflicts_with_tuned_fields_are_ignored(section):
    assert TrainSection.parse(section, "train").fixed.epochs == 3
