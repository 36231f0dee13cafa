"""Sets the dropout of a whole model, independent of the names that its architecture uses."""

from typing import Any

import torch

from components.core.errors import BadModel


def set_dropout(model: Any, share: float) -> None:
    """Set every dropout of `model` to `share`, also in its config, which is saved with it.

    The names differ between architectures (hidden_dropout_prob, attention_dropout, seq_classif_dropout …), but all contain `dropout`,
    and the value is in a Dropout module or, for attention, in a float attribute.

    Raises:
        BadModel: the model has no dropout.
    """
    count = 0
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p, count = share, count + 1
        for name, value in vars(part).items():
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, share)
                count += 1
    if not count:
        raise BadModel(f"{type(model).__name__} has no dropout to set; set train.dropout to null")
    for name, value in vars(model.config).items():
        if "dropout" in name and (isinstance(value, float) or (name == "classifier_dropout" and value is None)):
            setattr(model.config, name, share)
