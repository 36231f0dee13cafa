"""The section `snapshot` of params.yaml."""

import codecs
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.errors import BadParams
from components.core.section import Section


class SnapshotParams(Section):
    """Where the labelled data is, and its format."""

    source: str = Field(
        min_length=1,
        description="CSV, TSV, JSONL, JSON (an array) or Parquet file, glob, or folder of such files of one format; or sql://NAME, "
        "s3://BUCKET/PREFIX, hub://ORG/NAME@REVISION",
    )
    query: str | None = Field(default=None, min_length=1, description="for sql://NAME: the SELECT that returns the rows")
    columns: dict[str, str] = Field(default_factory=dict, description="canonical name: source name, e.g. {text: description}")
    encoding: str = Field(default="utf-8", description="encoding of CSV, TSV and JSONL files; a byte-order mark is accepted")
    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="delimiter of CSV files; null: that of a first line `sep=;`, else a comma, or a tab in .tsv files",
    )
    quoting: Literal["double", "backslash", "none"] | None = Field(
        default=None,
        description='in CSV and TSV. double: cells may be quoted, and a quote in a cell is written ""; backslash: it is written \\"; '
        "none: quotes are text. null: double, and a file in which quotes seem to be text is refused",
    )
    header: bool = Field(
        default=True, description="of CSV and TSV: whether the first line has the column names; false: they are column_1, column_2, …"
    )
    split_column: str | None = Field(
        None, min_length=1, description="the source column with the split of a row: train, validation or test. null: use the names of files"
    )
    split_files: bool = Field(default=True, description="whether files named train, validation and test set the split of their rows")
    class_labels: Literal["names", "numbers"] = Field(
        default="names", description="whether class numbers are replaced by the dataset's class names (ClassLabel)"
    )
    max_growth: int = Field(
        default=1_000, ge=1, description="maximum size of a Parquet file's text as a multiple of the file; files up to 256 MiB are exempt"
    )

    @property
    def scheme(self) -> str:
        """The scheme of the address, e.g. `s3`; empty for a local path."""
        scheme, separator, _ = self.source.partition("://")
        return scheme.lower() if separator else ""

    def at(self, source: str) -> Self:
        """Return the settings for data of the same format at another address; drop the query if the scheme differs.

        Raises:
            BadParams: `source` is empty; as a path it would be the working folder.
        """
        if not source.strip():
            raise BadParams("no data given: expected a file, glob, folder or address, found an empty text")
        moved = self.model_copy(update={"source": source})
        return moved if moved.scheme == self.scheme else moved.model_copy(update={"query": None})

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except (LookupError, UnicodeError):
            raise ValueError("expected the name of a text encoding, e.g. utf-8, cp1252 or utf-16") from None
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _delimiter_can_separate(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and delimiter in '"\r\n':
            raise ValueError("expected a character that is not a quote or a line end")
        return delimiter

    @model_validator(mode="after")
    def _columns_are_mapped_once(self) -> Self:
        sources = list(self.columns.values())
        if self.split_column is not None and self.split_column in sources:
            raise ValueError(f"split_column: {self.split_column!r} is already used in snapshot.columns; a column has one use")
        for name in sorted(set(sources)):
            if sources.count(name) > 1:
                names = " and ".join(canonical for canonical, source in self.columns.items() if source == name)
                raise ValueError(f"columns: {names} both use the source column {name!r}")
        return self
