"""A conditional random field over the tags of a sentence, as the head of any encoder of transformers.

Lafferty, McCallum & Pereira, "Conditional Random Fields" (2001); on top of a network: Lample et al., "Neural Architectures for Named
Entity Recognition" (2016). With the emissions e of a network, the score of the tags y = y_1 … y_n of a sentence is

    s(y) = a[y_1] + Σ_t e_t[y_t] + Σ_t T[y_{t-1}, y_t] + b[y_n]        and the log-likelihood        s(y) - log Σ_y' exp s(y')

a (start), T (transitions) and b (end) are learnt. The forward algorithm computes the sum over all y', Viterbi the best y; both take n k²
steps for k tags. With a tagging scheme (BIO, BIOES), invalid sequences are excluded from both.

    model = AutoModelForTokenClassificationWithCrf.from_pretrained(base, labels=["O", "B-PER", "I-PER"], scheme="BIO")

This is the architecture's `…ForTokenClassification` with a CRF on top: a `PreTrainedModel` for transformers' Trainer. Its folder can also
be loaded as that model without the CRF, or as the encoder. The CRF reads only the first sub-word of each token.
This file depends only on transformers and torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoConfig, PretrainedConfig
from transformers.modeling_outputs import TokenClassifierOutput

IGNORED = -100
"""The label of positions that are not the first sub-word of a token."""

FORBIDDEN = -1e4
"""Score of transitions that the scheme forbids: exp is 0 in float32, and unlike infinity, differences are finite."""


def may_follow(before: str | None, after: str | None, scheme: str) -> bool:
    """Whether `after` may follow `before`; None is the start or the end of the sentence."""
    if scheme == "plain":
        return True
    first, _, first_type = (before or "O").partition("-")
    second, _, second_type = (after or "O").partition("-")
    if scheme == "BIO":
        return second != "I" or (first in ("B", "I") and first_type == second_type)
    if first in ("B", "I"):
        return second in ("I", "E") and first_type == second_type
    return second in ("O", "B", "S")


class Crf(nn.Module):
    """A CRF over k tags `labels` with learnt start (k,), transitions (k, k) from row to column, and end (k,).

    The weights are multiplied by `rate`, so that they learn at `rate` times the learning rate: at that of a pretrained encoder (10⁻⁵ to
    10⁻³) they would hardly change.
    """

    def __init__(self, labels: Sequence[str], scheme: str = "plain", rate: float = 1.0) -> None:
        super().__init__()
        self.start, self.end = nn.Parameter(torch.zeros(len(labels))), nn.Parameter(torch.zeros(len(labels)))
        self.transitions = nn.Parameter(torch.zeros(len(labels), len(labels)))
        self.rate = rate
        # Arrays, not buffers: buffers would be saved, or lost if transformers creates the model on the meta device.
        self._forbidden = _penalties(labels, scheme)

    def reset(self) -> None:
        """Set all weights to zero."""
        for weights in (self.start, self.transitions, self.end):
            nn.init.zeros_(weights)

    def log_likelihood(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return log p(tags | emissions) of each sentence, (batch,).

        `emissions` (batch, n, k) and `tags` (batch, n) are padded on the right to n; `lengths` (batch,) are at least 1.
        """
        emissions = emissions.float()
        return self._score(emissions, tags, lengths) - self._partition(emissions, lengths)

    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the most likely tags of each sentence (Viterbi), (batch, n); `IGNORED` beyond its length."""
        emissions = emissions.float()
        start, transitions, end = self._weights()
        score, came_from = start + emissions[:, 0], list[Tensor]()
        for position in range(1, emissions.shape[1]):
            best, origin = (score.unsqueeze(2) + transitions).max(dim=1)  # (batch, from, to) → (batch, to)
            running = (position < lengths).unsqueeze(1)
            score = torch.where(running, best + emissions[:, position], score)
            came_from.append(torch.where(running, origin, torch.arange(origin.shape[1], device=origin.device)))
        path = [(score + end).argmax(dim=1)]
        for origin in reversed(came_from):
            path.append(origin.gather(1, path[-1].unsqueeze(1)).squeeze(1))
        positions = torch.arange(emissions.shape[1], device=emissions.device)
        return torch.stack(path[::-1], dim=1).masked_fill(positions >= lengths.unsqueeze(1), IGNORED)

    def _score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return s(tags), (batch,)."""
        start, transitions, end = self._weights()
        inside = torch.arange(tags.shape[1], device=tags.device) < lengths.unsqueeze(1)
        tags = tags.masked_fill(~inside, 0)
        steps = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        moves = nn.functional.embedding(tags[:, :-1], transitions).gather(2, tags[:, 1:].unsqueeze(2)).squeeze(2)
        last = tags.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)
        return _lookup(start, tags[:, 0]) + (steps * inside).sum(1) + (moves * inside[:, 1:]).sum(1) + _lookup(end, last)

    def _partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return log Σ_y exp s(y), (batch,): α_t[j] = e_t[j] + log Σ_i exp(α_{t-1}[i] + T[i, j])."""
        start, transitions, end = self._weights()
        alpha = start + emissions[:, 0]
        for position in range(1, emissions.shape[1]):
            following = torch.logsumexp(alpha.unsqueeze(2) + transitions, dim=1) + emissions[:, position]
            alpha = torch.where((position < lengths).unsqueeze(1), following, alpha)
        return torch.logsumexp(alpha + end, dim=1)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return start, transitions and end in float32, with penalties for forbidden transitions."""
        learnt = (weights.float() for weights in (self.start, self.transitions, self.end))
        scaled = (weights + (self.rate - 1) * weights.detach() for weights in learnt)
        start, transitions, end = (
            weights + torch.from_numpy(penalty).to(weights.device) for weights, penalty in zip(scaled, self._forbidden, strict=True)
        )
        return start, transitions, end


def _penalties(labels: Sequence[str], scheme: str) -> tuple[npt.NDArray[np.float32], ...]:
    """Return the penalties for start (k,), transitions (k, k) and end (k,): `FORBIDDEN` for invalid transitions, else 0."""
    tables = (
        [may_follow(None, tag, scheme) for tag in labels],
        [[may_follow(before, after, scheme) for after in labels] for before in labels],
    )
    ends = [may_follow(tag, None, scheme) for tag in labels]
    return tuple(np.where(allowed, 0, FORBIDDEN).astype(np.float32) for allowed in (*tables, ends))


def _lookup(weights: Tensor, indexes: Tensor) -> Tensor:
    """Return weights[indexes]; the gradient of an embedding, unlike that of indexing, is summed in a fixed order."""
    return nn.functional.embedding(indexes, weights.unsqueeze(1)).squeeze(-1)


@dataclass
class CrfOutput(TokenClassifierOutput):
    """`logits` are the emissions (batch, positions, k); `tags` (batch, positions) the predicted tags, `IGNORED` within tokens."""

    tags: Tensor | None = None


class CrfHead:
    """A mixin for an architecture's `…ForTokenClassification`: its logits become the emissions."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # the architecture's
        names: Any = config.id2label
        labels = [names[index] for index in range(len(names))]
        self.crf = Crf(labels, config.crf_scheme, config.crf_rate)
        self.post_init()  # type: ignore[attr-defined]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Crf):
            module.reset()
        else:
            super()._init_weights(module)  # type: ignore[misc]

    def forward(self, *inputs: Any, labels: Tensor | None = None, begins: Tensor | None = None, **rest: Any) -> CrfOutput:
        """Return the emissions, the loss if `labels` are given, and in evaluation mode the predicted tags.

        `labels` (batch, positions) has the tag index where a token begins, else `IGNORED`. Without labels, `begins` of the same shape marks
        these positions; without both, every attended position is a token. The loss is the mean negative log-likelihood per token, so
        that learning rates are comparable with a linear head.
        """
        output = super().forward(*inputs, **rest)  # type: ignore[misc]
        if begins is None:
            begins = labels != IGNORED if labels is not None else rest.get("attention_mask")
        if begins is None:
            begins = torch.ones(output.logits.shape[:2], device=output.logits.device)
        with torch.autocast(output.logits.device.type, enabled=False):
            loss, tags = self._answer(output.logits.float(), labels, begins.bool())
        return CrfOutput(loss=loss, logits=output.logits, tags=tags, hidden_states=output.hidden_states, attentions=output.attentions)

    def _answer(self, logits: Tensor, labels: Tensor | None, begins: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the loss and the tags; sentences without tokens are skipped."""
        filled = begins.any(1)
        order = (~begins[filled]).to(torch.uint8).argsort(dim=1, stable=True)  # tokens first, in order
        lengths = begins[filled].sum(1)
        order = order[:, : int(lengths.max()) if len(lengths) else 1]
        emissions = logits[filled].gather(1, order.unsqueeze(2).expand(-1, -1, logits.shape[2]))
        loss = tags = None
        if labels is not None:
            likelihood = self.crf.log_likelihood(emissions, labels[filled].gather(1, order), lengths)
            loss = -likelihood.sum() / lengths.sum().clamp(min=1)
        if not self.training:  # type: ignore[attr-defined]
            tags = torch.full(begins.shape, IGNORED, device=logits.device)
            tags[filled] = tags[filled].scatter(1, order, self.crf.decode(emissions, lengths))
        return loss, tags


@cache
def with_crf(architecture: type) -> Any:
    """Return a subclass of `architecture`, a `…ForTokenClassification` of transformers, with a CRF."""
    return type(f"{architecture.__name__}WithCrf", (CrfHead, architecture), {"__module__": __name__})


class AutoModelForTokenClassificationWithCrf:
    """Loads the token classification model of any architecture with a CRF on top."""

    @staticmethod
    def from_pretrained(
        folder: Path | str, *, labels: Sequence[str] | None = None, scheme: str | None = None, rate: float | None = None, **settings: Any
    ) -> Any:
        """Load a base model or a model saved with this head; a missing head is initialised.

        A saved config.json contains `id2label`, `crf_scheme` and `crf_rate`; a base needs `labels`. See `Crf`.
        `settings` are passed to the architecture's `from_pretrained`.
        Raise ValueError if transformers has no token classification model of this architecture.
        """
        offline = {name: settings[name] for name in ("local_files_only", "trust_remote_code") if name in settings}
        config = AutoConfig.from_pretrained(folder, **offline)
        if type(config) not in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
            raise ValueError(f"transformers has no token classification model of the type {config.model_type}")
        if labels is not None:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: index for index, label in config.id2label.items()}
        before = getattr(config, "crf_rate", 1.0)
        config.crf_scheme, config.crf_rate = scheme or getattr(config, "crf_scheme", "plain"), rate or before
        loaded = with_crf(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)]).from_pretrained(folder, config=config, **settings)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        with torch.no_grad():
            for weights in model.crf.parameters():
                weights.mul_(before / config.crf_rate)  # keep the effective weights if the rate changes
        return loaded
