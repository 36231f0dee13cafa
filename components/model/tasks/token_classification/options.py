"""The section `task_options` of token classification."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.section import Section
from components.core.text import canonical_label
from components.model.tasks.token_classification.schemes import Scheme


class Options(Section):
    """The data format, the tagging scheme and the head."""

    data: Literal["tokens", "spans"] = Field("tokens", description="data columns: tokens and tags, or text and spans (of characters)")
    scheme: Scheme = Field("BIO", description="tagging scheme of entities; plain: tags without entities, e.g. parts of speech")
    types: tuple[str, ...] = Field((), description="allowed entity types (tags with scheme plain); empty: all in the data")
    head: Literal["linear", "crf"] = Field(
        "linear", description="linear: independent tags; crf: the most likely tag sequence of a sentence"
    )
    transition_rate: float = Field(1.0, ge=1, le=10_000, description="crf: learning rate multiplier of the transitions")

    @field_validator("types")
    @classmethod
    def _are_names(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, types))
        if len(set(names)) < len(names) or not all(names) or any(name != name.strip() for name in types):
            raise ValueError("expected different names without surrounding spaces, e.g. PER for B-PER")
        return names

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.data == "spans" and self.scheme == "plain":
            raise ValueError("spans are entities, which the scheme plain does not support; choose BIO or BIOES")
        if self.head != "crf" and self.transition_rate != type(self).model_fields["transition_rate"].default:
            raise ValueError("transition_rate is used only with head crf; remove it, or set head: crf")
        return self
