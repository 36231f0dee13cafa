"""A masked language model whose head is computed only at masked tokens.

The head is as wide as the vocabulary: over all tokens of a batch it costs as much as the encoder, and its logits fill the memory.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from components.core.errors import BadModel
from components.model.support import pretrained
from components.model.tasks.masked_lm.masking import IGNORED

# The number of computed positions is a multiple of this: varying block sizes fragment the memory (6 GiB instead of 2 in a training of some
# hundred steps).
_STEP = 64


def load(folder: Path, *, head: bool = False) -> Any:
    """Load `folder`, with a new `head` from torch's global generator if it has none; raise BadModel if that fails.

    With `labels`, forward returns logits (1, masked tokens, vocabulary) in token order.
    """
    if pretrained.config(folder).get("is_encoder_decoder"):
        raise BadModel(f"the model in {folder} is an encoder-decoder; masked_lm needs an encoder such as BERT or RoBERTa")
    model = pretrained.load_model("AutoModelForMaskedLM", folder, head=head)
    architecture: Any = type(model)
    model.__class__ = _sparse(architecture)
    return model


@cache
def _sparse(architecture: Any) -> Any:
    """Return a subclass with the name of the architecture's class, so that the saved config names the architecture."""

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **rest: Any) -> Any:
        if labels is None:
            return architecture.forward(self, input_ids, attention_mask=attention_mask, **rest)
        positions = (labels != IGNORED).flatten().nonzero()[:, 0]
        count = len(positions)
        positions = torch.cat([positions, positions[:1].expand(-count % _STEP)])
        targets = labels.flatten()[positions].index_fill(0, torch.arange(count, len(positions), device=labels.device), IGNORED)

        def pick(_: Any, __: Any, output: Any) -> Any:
            return type(output)(last_hidden_state=output[0].flatten(0, 1)[positions][None])

        hook = self.base_model.register_forward_hook(pick)
        try:
            output = architecture.forward(self, input_ids, attention_mask=attention_mask, labels=targets[None], **rest)
        finally:
            hook.remove()
        output.logits = output.logits[:, :count]
        return output

    return type(
        architecture.__name__, (architecture,), {"forward": forward, "__module__": architecture.__module__, "__doc__": architecture.__doc__}
    )


def condense(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return log-likelihood in nats, hits and number of masked tokens for each row of `labels` (rows, tokens): (rows, 3).

    `logits` are those of the masked tokens, (1, masked tokens, vocabulary), or of all tokens.
    """
    masked = labels != IGNORED
    picked = logits[masked] if logits.shape[:2] == labels.shape else logits[0]
    targets, rows = labels[masked], masked.nonzero()[:, 0]
    likelihood = torch.log_softmax(picked.float(), dim=-1).gather(1, targets[:, None])[:, 0]
    statistics = torch.stack([likelihood, (picked.argmax(dim=-1) == targets).float(), torch.ones_like(likelihood)], dim=1)
    return torch.zeros(len(labels), 3, device=statistics.device).index_add_(0, rows, statistics)
