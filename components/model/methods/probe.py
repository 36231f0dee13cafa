"""Linear probe: every weight of the base stays, and the output layer is fitted on frozen features, without a training step.

The result is an ordinary model. A good probe is hard to beat with few rows, and it costs seconds: Kumar et al., "Fine-Tuning can Distort
Pretrained Features and Underperform Out-of-Distribution" (2022).
"""

from typing import Any

from components.core.section import Section

IN_PLACE = False
TRAINS = False


class Params(Section):
    """No settings."""


def prepare(model: Any, params: Params) -> Any:
    """Freeze `model`, whose output layer has been fitted."""
    return model.requires_grad_(False)


def finish(model: Any) -> Any:
    """Return `model` with all weights trainable again."""
    return model.requires_grad_(True)
