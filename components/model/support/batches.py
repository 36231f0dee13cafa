"""Tables of encoded rows, batches of rows of similar length, padding and pooling."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")


def token_table(inputs: Any, **columns: pa.Array) -> pa.Table:
    """Return the model `inputs` by name, each a list of tokens per row, then `columns`, then `length` in tokens."""
    tokens = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs)}
    return pa.table({**tokens, **columns, "length": pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())})


def token_lengths(tokenize: Callable[..., Any], *texts: Any) -> npt.NDArray[np.int64]:
    """Return the length of each row in tokens, special tokens included, before truncation."""
    unused = dict.fromkeys(("truncation", "padding", "return_attention_mask", "return_token_type_ids", "verbose"), False)
    return np.array([len(ids) for ids in tokenize(*texts, **unused)["input_ids"]], dtype=np.int64)


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


def padded(rows: Sequence[Any], value: int, side: str = "right") -> Any:
    """Return `rows` of token ids as one tensor (rows, longest), padded with `value`."""
    import torch

    tensors = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


def pooled(tokens: Any, mask: Any, how: str) -> Any:
    """Pool the `tokens` (batch, length, width) selected by `mask` (batch, length) to (batch, width).

    `how` is cls (the first token), last or lasttoken, max, mean, mean_sqrt_len_tokens, or weightedmean (weighted by position, from 1).
    """
    import torch

    kept, rows = mask.bool(), torch.arange(len(tokens), device=tokens.device)
    weight = kept.unsqueeze(-1).to(tokens.dtype)
    match how:
        case "cls":
            return tokens[rows, kept.int().argmax(dim=1)]
        case "last" | "lasttoken":
            return tokens[rows, kept.shape[1] - 1 - kept.flip(1).int().argmax(dim=1)]
        case "max":
            return tokens.masked_fill(weight == 0, torch.finfo(tokens.dtype).min).amax(dim=1)
        case "weightedmean":
            weight = weight * torch.arange(1, tokens.shape[1] + 1, device=tokens.device, dtype=tokens.dtype)[:, None]
    total, count = (tokens * weight).sum(dim=1), weight.sum(dim=1).clamp(min=1)
    return total / (count.sqrt() if how == "mean_sqrt_len_tokens" else count)
