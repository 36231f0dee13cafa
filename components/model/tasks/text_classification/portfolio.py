"""The configurations that the strategy `auto` tries, in this order.

The order is a judgement from single comparisons (`docs/log.md`), not yet the result of `python -m bench portfolio`.
"""

from collections.abc import Mapping
from typing import Any

_MEAN = {"task_options.pooling": "mean"}
_PROBED = {**_MEAN, "method": "full", "head_start": "probe"}
PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {**_MEAN, "method": "probe"},
    {"task_options.pooling": "last_four", "method": "probe"},
    {**_PROBED, "learning_rate": 2e-4, "epochs": 4, "batch_size": 32},
    {**_PROBED, "learning_rate": 3e-4, "epochs": 6, "batch_size": 32, "task_options.class_weights": "balanced"},
    {**_PROBED, "learning_rate": 5e-5, "epochs": 4, "batch_size": 16},
    {**_PROBED, "method": "freeze", "frozen_layers": 3, "learning_rate": 3e-4, "epochs": 6, "batch_size": 32},
    {**_PROBED, "method": "lora", "learning_rate": 1e-3, "epochs": 6, "batch_size": 32, "lora_targets": "all-linear"},
    {**_PROBED, "learning_rate": 1e-4, "epochs": 8, "batch_size": 16, "label_smoothing": 0.1},
    {**_MEAN, "method": "full", "contrastive_start": 1.0, "learning_rate": 1e-4, "epochs": 4, "batch_size": 32},
)
