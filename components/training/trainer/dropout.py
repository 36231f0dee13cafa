"""One dropout for a whole model, whatever its architecture calls it."""

from typing import Any

import torch

from components.core.errors import BadModel


def set_dropout(model: Any, share: float) -> None:
    """Drop `share` of the values wherever `model` drops any, and say so in its config, which is saved with it.

    Architectures name it differently (hidden_dropout_prob, attention_dropout, seq_classif_dropout …); what they agree on is that the
    name has `dropout` in it, and that it ends up in a Dropout module or, for the attention, in a number.

    Raises:
        BadModel: the model drops nothing anywhere.
    """
    places = 0
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p, places = share, places + 1
        for name, value in vars(part).items():
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, share)
                places += 1
    if not places:
        raise BadModel(f"{type(model).__name__} has no dropout to set; write train.dropout: null")
    for name, value in vars(model.config).items():
        if "dropout" in name and (isinstance(value, float) or (name == "classifier_dropout" and value is None)):
            setattr(model.config, name, share)
