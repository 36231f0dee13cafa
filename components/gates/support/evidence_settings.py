"""The settings with which evidence is gathered. The settings of a gate that needs the evidence inherit them.

`components.gates.settings_of` selects the gate whose settings apply.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from components.core.section import Section, nearest

PERTURBED = ("typos", "case", "width", "diacritics", "punctuation", "padding")


class OverlapSettings(Section):
    """Similarity from which a test row counts as a copy of a training row; such rows are excluded from every comparison."""

    near_duplicate: float = Field(0.8, gt=0.3, le=1, description="Jaccard similarity of word shingles; 1: exact copies only")


class PastTestSettings(Section):
    """The evidence `past_test_sets`."""

    last: int = Field(5, ge=0, le=50, description="number of test sets of earlier snapshots, the newest first; 0: none")
    sets: tuple[str, ...] = Field((), description="paths of regression sets: tables with text and label")


class ServedSettings(Section):
    """The evidence `served`."""

    rows: int = Field(200, ge=0, description="test rows sent to the scoring server, evenly spread; 0: all rows")
    max_seconds: float = Field(180, gt=0, description="seconds for the server to start, and as many for all requests")


def _check_kind(kind: str) -> str:
    if kind not in PERTURBED:
        raise ValueError(f"unknown kind{nearest(kind, list(PERTURBED))}")
    return kind


class BehaviourSettings(Section):
    """The evidence `behaviour`."""

    cases: str = Field("", description="a YAML file of user-written cases, relative to params.yaml; empty: none")
    kinds: tuple[Annotated[str, AfterValidator(_check_kind)], ...] = Field(PERTURBED, description="perturbations of test rows")
    rows: int = Field(100, ge=1, le=10_000, description="perturbed test rows per kind")
    seed: int = Field(7, ge=0, description="random seed of the selected rows and perturbations")
    padding: tuple[str, ...] = Field(
        ("Please note: {text}", "{text} (as noted)", "{text} Thank you."), description="phrases in the texts' language; {text} is the text"
    )

    @field_validator("padding")
    @classmethod
    def _contain_text(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if any("{text}" not in phrase for phrase in phrases):
            raise ValueError("every phrase must contain {text}")
        return phrases


class CostSettings(Section):
    """The evidence `cost`."""

    batch_sizes: tuple[int, ...] = Field((1, 32), min_length=1, description="texts per request")
    pairs: int = Field(20, ge=20, le=1000, description="blocks per version; candidate and champion are timed in pairs, in random order")
    requests: int = Field(10, ge=3, le=1000, description="requests per block; fewer if max_seconds is too short")
    max_seconds: float = Field(20, gt=0, description="seconds for all blocks; a block has at least 2 requests, however long they take")

    @field_validator("batch_sizes")
    @classmethod
    def _check_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if min(sizes, default=1) < 1 or len(set(sizes)) < len(sizes):
            raise ValueError("batch sizes must be different integers of at least 1")
        return sizes


EVIDENCE_SETTINGS: tuple[type[Section], ...] = (OverlapSettings, PastTestSettings, ServedSettings, BehaviourSettings, CostSettings)
