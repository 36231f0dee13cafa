"""A model with a masked language modelling head that is computed where a token is asked for, and nowhere else.

The head is as wide as the vocabulary: over all tokens of a batch it costs as much as the encoder, and its logits fill the memory.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from components.core.errors import BadModel
from components.model.support import pretrained
from components.model.tasks.masked_lm.masking import IGNORED

# Places for which the head is computed are a multiple of this: blocks of any other size would leave the memory in pieces, and a training of
# some hundred steps took 6 GiB instead of 2.
_STEP = 64


def load(folder: Path, *, head: bool = False) -> Any:
    """Load `folder`, with a `head` from torch's global generator where a base brings none; BadModel.

    With `labels`, its forward returns logits (1, asked for, vocabulary), in the order of the tokens.
    """
    if pretrained.config(folder).get("is_encoder_decoder"):
        raise BadModel(f"the model in {folder} is an encoder-decoder; masked_lm needs an encoder, as BERT or RoBERTa")
    model = pretrained.load_model("AutoModelForMaskedLM", folder, head=head)
    kind: Any = type(model)
    model.__class__ = _sparse(kind)
    return model


@cache
def _sparse(kind: Any) -> Any:
    """Return a subclass of an architecture's own class that goes by its name, so that what is saved says what it is."""

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **rest: Any) -> Any:
        if labels is None:
            return kind.forward(self, input_ids, attention_mask=attention_mask, **rest)
        places = (labels != IGNORED).flatten().nonzero()[:, 0]
        count = len(places)
        places = torch.cat([places, places[:1].expand(-count % _STEP)])
        wanted = labels.flatten()[places].index_fill(0, torch.arange(count, len(places), device=labels.device), IGNORED)

        def pick(_: Any, __: Any, output: Any) -> Any:
            return type(output)(last_hidden_state=output[0].flatten(0, 1)[places][None])

        hook = self.base_model.register_forward_hook(pick)
        try:
            found = kind.forward(self, input_ids, attention_mask=attention_mask, labels=wanted[None], **rest)
        finally:
            hook.remove()
        found.logits = found.logits[:, :count]
        return found

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__})


def condense(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return for each row of `labels` (rows, tokens) the summed log-likelihood in nats, the hits, and the tokens asked for: (rows, 3).

    `logits` are those of the tokens asked for, (1, asked for, vocabulary), or of all.
    """
    asked = labels != IGNORED
    picked = logits[asked] if logits.shape[:2] == labels.shape else logits[0]
    wanted, rows = labels[asked], asked.nonzero()[:, 0]
    likelihood = torch.log_softmax(picked.float(), dim=-1).gather(1, wanted[:, None])[:, 0]
    told = torch.stack([likelihood, (picked.argmax(dim=-1) == wanted).float(), torch.ones_like(likelihood)], dim=1)
    return torch.zeros(len(labels), 3, device=told.device).index_add_(0, rows, told)
