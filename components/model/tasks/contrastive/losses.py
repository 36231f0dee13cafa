"""The losses of sentence embeddings, over unit vectors (rows, width) and keys that identify equal texts.

Without false negatives, both equal those of sentence-transformers (compared in tests).
"""

from collections.abc import Sequence

import torch


def in_batch(anchors: torch.Tensor, others: Sequence[torch.Tensor], keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean cross-entropy of each anchor's positive among the texts of the batch, by cosine / `temperature`.

    `others` are the positives and, if any, the negatives. `keys` (rows, 3 or 4) identify group, anchor, positive and negative of
    each row. Van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018), equation 4; with
    the same text twice Gao et al., "SimCSE" (2021), equation 1.
    """
    similarity = anchors @ torch.cat(list(others)).T / temperature
    similarity = similarity.masked_fill(false_negatives(keys), -torch.inf)
    return torch.nn.functional.cross_entropy(similarity, torch.arange(len(anchors), device=anchors.device))


def false_negatives(keys: torch.Tensor) -> torch.Tensor:
    """Return a mask of the texts that are not negatives of a row, (rows, positives and negatives).

    These are the anchors and positives of rows with the same group or anchor, except the row's positive and negative.
    """
    group, anchor, positive = keys[:, 0], keys[:, 1], keys[:, 2]
    related = (group[:, None] == group) | (anchor[:, None] == anchor)
    texts = keys[:, 2:].T.reshape(-1)
    equal = (anchor[:, None] == texts) | (positive[:, None] == texts)
    own_texts = torch.eye(len(keys), dtype=torch.bool, device=keys.device).repeat(1, keys.shape[1] - 2)
    return (related.float() @ equal.float() > 0) & ~own_texts


def by_score(a: torch.Tensor, b: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return log(1 + Σ exp((cos_i − cos_j) / `temperature`)) over the pairs of rows with score_i < score_j.

    CoSENT (Su, 2022): only the order of the `scores` (rows,) matters.
    """
    similarity = (a * b).sum(dim=-1) / temperature
    differences = (similarity[:, None] - similarity)[scores[:, None] < scores]
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences]), dim=0)
