"""What makes embeddings learn from a batch: unit vectors (rows, width), and numbers that tell which texts are the same.

Without false negatives to leave out, both equal those of sentence-transformers, which tests hold them against.
"""

from collections.abc import Sequence

import torch


def in_batch(anchors: torch.Tensor, others: Sequence[torch.Tensor], keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean cross-entropy of each anchor's own positive among the texts of the batch, by cosine / `temperature`.

    `others` are the positives and, where there are some, the negatives. `keys` (rows, 3 or 4) are numbers of each row's group, anchor,
    positive and negative. Van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018), equation 4; with
    the same text twice Gao et al., "SimCSE" (2021), equation 1.
    """
    similar = anchors @ torch.cat(list(others)).T / temperature
    similar = similar.masked_fill(false_negatives(keys), -torch.inf)
    return torch.nn.functional.cross_entropy(similar, torch.arange(len(anchors), device=anchors.device))


def false_negatives(keys: torch.Tensor) -> torch.Tensor:
    """Return which texts of the batch are no negatives of a row, (rows, positives and negatives).

    Those are all that rows of its group, or with its anchor, have for an anchor or a positive; but never its own positive, nor the
    negative that it was given itself.
    """
    group, anchor, positive = keys[:, 0], keys[:, 1], keys[:, 2]
    related = (group[:, None] == group) | (anchor[:, None] == anchor)
    texts = keys[:, 2:].T.reshape(-1)
    known = (anchor[:, None] == texts) | (positive[:, None] == texts)
    own = torch.eye(len(keys), dtype=torch.bool, device=keys.device).repeat(1, keys.shape[1] - 2)
    return (related.float() @ known.float() > 0) & ~own


def by_score(one: torch.Tensor, other: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return log(1 + Σ exp((cos_i − cos_j) / `temperature`)) over the pairs of rows whose score says that i is less alike than j.

    CoSENT (Su, 2022): only the order of the `scores` (rows,) counts, so their scale is of no matter.
    """
    similar = (one * other).sum(dim=-1) / temperature
    apart = similar[:, None] - similar
    apart = apart[scores[:, None] < scores]
    return torch.logsumexp(torch.cat([apart.new_zeros(1), apart]), dim=0)
