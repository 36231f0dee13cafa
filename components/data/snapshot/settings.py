"""The section `snapshot` of params.yaml."""

import codecs
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.errors import BadParams
from components.core.section import Section


class SnapshotParams(Section):
    """Where the labelled data lies and how it is written down."""

    source: str = Field(
        min_length=1,
        description="a CSV, TSV, JSONL or Parquet file, a glob, or a folder of such files of one format; or sql://NAME, "
        "s3://BUCKET/PREFIX, hub://ORG/NAME@REVISION",
    )
    query: str | None = Field(default=None, min_length=1, description="of sql://NAME: the SELECT whose rows are the data")
    columns: dict[str, str] = Field(default_factory=dict, description="canonical name: the source's name, as {text: description}")
    encoding: str = Field(default="utf-8", description="of CSV, TSV and JSONL; a byte-order mark is accepted")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="of CSV; None: a comma, and a tab in .tsv files")
    quoting: Literal["double", "backslash", "none"] | None = Field(
        default=None,
        description='of CSV and TSV. double: a cell may stand in quotes, and a quote in it is written ""; backslash: it is written \\"; '
        "none: quotes are text. None: double, and a file in which quotes seem to be text is refused",
    )
    split_column: str | None = Field(
        default=None,
        min_length=1,
        description="the source's column that gives the split of a row: train, validation or test. None: files with such names do",
    )
    split_files: bool = Field(default=True, description="whether files named train, validation and test give the split of their rows")
    class_labels: Literal["names", "numbers"] = Field(
        default="names", description="what becomes of classes that stand as numbers, where the data set gives their names (ClassLabel)"
    )
    max_growth: int = Field(
        default=1_000, ge=1, description="times its own size that the text of a Parquet file may have, where it is more than 256 MiB"
    )

    @property
    def scheme(self) -> str:
        """What the address begins with, as `s3`; nothing where it is a local file's."""
        scheme, separator, _ = self.source.partition("://")
        return scheme.lower() if separator else ""

    def at(self, source: str) -> Self:
        """Return the settings for data of the same shape that lie elsewhere; the query of another kind of source is left out.

        Raises:
            BadParams: `source` is an empty text, which as a path would be the working folder.
        """
        if not source.strip():
            raise BadParams("no data are named: expected a file, a glob, a folder or an address, found an empty text")
        moved = self.model_copy(update={"source": source})
        return moved if moved.scheme == self.scheme else moved.model_copy(update={"query": None})

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except (LookupError, UnicodeError):
            raise ValueError("expected the name of a text encoding, as utf-8, cp1252 or utf-16") from None
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _delimiter_can_separate(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and delimiter in '"\r\n':
            raise ValueError("expected a character that is neither a quote nor a line end")
        return delimiter

    @model_validator(mode="after")
    def _a_split_is_no_other_column(self) -> Self:
        if self.split_column is not None and self.split_column in self.columns.values():
            raise ValueError(f"split_column: {self.split_column!r} is taken by snapshot.columns; a column has one use")
        return self

    @model_validator(mode="after")
    def _a_column_has_one_name(self) -> Self:
        sources = list(self.columns.values())
        for name in sorted(set(sources)):
            if sources.count(name) > 1:
                twice = " and ".join(canonical for canonical, source in self.columns.items() if source == name)
                raise ValueError(f"columns: {twice} are both taken from {name!r}")
        return self
