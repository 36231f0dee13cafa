"""The configurations that `python -m bench portfolio` compares: fields of `train` that differ from its defaults, and task options."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

Configuration = dict[str, dict[str, Any]]
"""`train` and `task_options`."""

MEAN = {"pooling": "mean"}
BALANCED = MEAN | {"class_weights": "balanced"}
PROBED = {"head_start": "probe"}
LORA = {"method": "lora", "lora_targets": "all-linear"}


def named(configuration: Configuration) -> str:
    """Return a name that is unique for the values of a configuration."""
    train, options = configuration["train"], configuration["task_options"]
    return ", ".join([train.get("method", "full"), *(f"{name} {value}" for name, value in (train | options).items() if name != "method")])


def of_task(task: str) -> dict[str, Configuration]:
    """Return the configurations of a task by name, the most plausible first; those of the task's own portfolio are among them."""
    pairs = _OF_TASK[task]()
    return {named(found): found for found in ({"train": dict(train), "task_options": dict(options)} for train, options in pairs)}


def _train(rate: float, epochs: int, batch: int = 16, **more: Any) -> dict[str, Any]:
    return {"learning_rate": rate, "epochs": epochs, "batch_size": batch, **more}


Pairs = Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]


def _texts() -> Pairs:
    yield from (({"method": "probe"}, {"pooling": pooling}) for pooling in ("mean", "cls", "last_four"))
    yield _train(2e-4, 4, 32, **PROBED), MEAN
    yield _train(3e-4, 6, 32, **PROBED), BALANCED
    yield _train(1e-4, 4, **PROBED), MEAN
    yield _train(1e-3, 6, 32, **LORA, **PROBED), MEAN
    yield _train(3e-4, 4, 32, **PROBED), MEAN
    yield _train(3e-4, 6, 32, method="freeze", frozen_layers=3, **PROBED), MEAN
    yield _train(1e-4, 8, **PROBED, label_smoothing=0.1), MEAN
    yield _train(5e-5, 4, **PROBED), MEAN
    yield _train(1e-4, 4, 32, contrastive_start=1), MEAN
    yield _train(2e-5, 3), {}  # the usual default
    yield _train(2e-4, 6, layer_decay=0.8, **PROBED), MEAN
    yield _train(1e-4, 6), MEAN  # what the probe as a start is worth
    yield _train(2e-4, 6, **PROBED), BALANCED
    yield _train(2e-3, 12, **LORA, **PROBED), MEAN
    yield _train(3e-4, 12, **PROBED), MEAN
    yield _train(3e-4, 6, method="freeze", frozen_layers=0, **PROBED), MEAN  # only the embeddings
    yield _train(2e-4, 3, 32), {}  # the default of this project
    # The rest varies one of them.
    sizes = ((4, 32), (6, 16), (6, 32), (4, 16))  # epochs and batch
    yield from ((_train(rate, *size, **PROBED), MEAN) for size, rate in itertools.product(sizes, (1e-4, 2e-4, 3e-4)))
    yield _train(1e-4, 4, 32, **PROBED), BALANCED
    yield _train(3e-4, 6, layer_decay=0.9, **PROBED), MEAN
    yield _train(2e-4, 6, method="freeze", frozen_layers=3, **PROBED), MEAN
    yield _train(5e-4, 4, **LORA, **PROBED), MEAN
    yield _train(1e-3, 6, method="lora", **PROBED), MEAN
    yield _train(3e-4, 4, 32, contrastive_start=1), MEAN
    yield from ((_train(rate, 12, **PROBED), MEAN) for rate in (1e-4, 3e-5))
    yield from ((_train(3e-4, epochs, 64, **PROBED), MEAN) for epochs in (4, 8))
    yield _train(1e-4, 6, **PROBED), {"pooling": "last_four"}
    yield _train(2e-4, 6, **PROBED, ema=0.99), MEAN


def _tokens() -> Pairs:
    yield {"method": "probe"}, {}
    yield from ((_train(2e-5, 3), {}), (_train(2e-4, 3, 32), {}))
    yield from ((_train(rate, epochs), {}) for epochs, rate in itertools.product((6, 12), (3e-4, 1e-4)))
    yield from ((_train(rate, epochs, **PROBED), {}) for epochs, rate in ((6, 3e-4), (12, 3e-4), (3, 5e-4), (6, 1e-4)))
    yield from ((_train(3e-4, epochs, **PROBED), {"head": "crf"}) for epochs in (6, 12))
    yield _train(3e-4, 6, label_smoothing=0.1, **PROBED), {}
    yield _train(5e-4, 6, layer_decay=0.8, **PROBED), {}
    yield from ((_train(2e-3, epochs, **LORA, **PROBED), {}) for epochs in (12, 6))
    yield _train(3e-4, 6, method="freeze", frozen_layers=3, **PROBED), {}


def _vectors() -> Pairs:
    yield from ((_train(rate, epochs, batch), {}) for rate, epochs, batch in ((1e-4, 1, 64), (1e-4, 3, 64), (3e-5, 3, 64), (3e-4, 3, 64)))
    yield from ((_train(2e-4, 3, 128), {}), (_train(5e-5, 3, 32), {}))
    yield from ((_train(1e-4, 3, 64), {"temperature": value}) for value in (0.02, 0.1))
    yield _train(1e-3, 3, 64, **LORA), {}
    yield _train(1e-4, 3, 64, method="freeze", frozen_layers=3), {}


_OF_TASK = {"text_classification": _texts, "token_classification": _tokens, "contrastive": _vectors}
