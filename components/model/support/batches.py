"""Tables of encoded rows, and batches of rows of similar length."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")


def token_table(inputs: Any, **columns: pa.Array) -> pa.Table:
    """Return the model `inputs` by name, each a list of tokens per row, then `columns`, then `length` in tokens."""
    tokens = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs)}
    return pa.table({**tokens, **columns, "length": pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())})


def in_batches(
    items: Sequence[Item], size: int, key: Callable[[Item], Any], compute: Callable[[list[Item]], Sequence[Result]]
) -> list[Result]:
    """Return the results of `compute` for `items`, in their order; batches of up to `size` items are sorted by `key` to reduce padding."""
    order = sorted(range(len(items)), key=lambda index: key(items[index]))
    results: dict[int, Result] = {}
    for start in range(0, len(order), size):
        indexes = order[start : start + size]
        results |= zip(indexes, compute([items[index] for index in indexes]), strict=True)
    return [results[index] for index in range(len(items))]
