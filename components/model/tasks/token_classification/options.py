"""The section `task_options` of token classification."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.section import Section
from components.core.text import canonical_label
from components.model.tasks.token_classification.schemes import Scheme


class Options(Section):
    """What the data are, what the tags mean, and what predicts them."""

    data: Literal["tokens", "spans"] = Field("tokens", description="columns: tokens and tags, or text and spans (of characters)")
    scheme: Scheme = Field("BIO", description="how tags write entities; plain: tags that write none, as parts of speech")
    types: tuple[str, ...] = Field((), description="entity types that are allowed, of the scheme plain the tags; empty: every one seen")
    head: Literal["linear", "crf"] = Field("linear", description="linear: each tag for itself; crf: the likeliest tags of a sentence")
    transition_rate: float = Field(
        1.0, ge=1, le=10_000, description="crf: learning rate of the transitions between tags, times that of the other weights"
    )

    @field_validator("types")
    @classmethod
    def _are_names(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, types))  # as those of the data are read
        if len(set(names)) < len(names) or not all(names) or any(name != name.strip() for name in types):
            raise ValueError("expected different names without space at their ends, as PER for B-PER")
        return names

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.data == "spans" and self.scheme == "plain":
            raise ValueError("spans are entities, which tags of the scheme plain cannot write; choose BIO or BIOES")
        if self.head != "crf" and self.transition_rate != type(self).model_fields["transition_rate"].default:
            raise ValueError("transition_rate is read where head is crf; leave it out, or choose head crf")
        return self
