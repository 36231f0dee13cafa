"""The base classes of artifacts: frozen records, stored as one JSON file in the output folder of a step."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.atomic import write_text
from components.core.errors import NotFound


class Record(BaseModel):
    """A frozen record without unknown fields, part of an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Artifact(Record):
    """A record with a fixed file name, written last and atomically."""

    model_config = ConfigDict(ser_json_inf_nan="null")

    FILE: ClassVar[str]

    def write(self, folder: Path) -> Path:
        """Write the record to `folder` and return its path."""
        path = folder / self.FILE
        write_text(path, self.model_dump_json(indent=2) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record from `folder`.

        Raises:
            NotFound: the file is missing, or another version of Retune wrote it.
        """
        path = folder / cls.FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"{path} is missing: the step that writes it has not run; `retune run` runs all of them") from None
        except ValidationError as error:
            raise NotFound(f"{path} cannot be read ({error.error_count()} fields do not fit); run its step again") from None
        except UnicodeDecodeError:
            raise NotFound(f"{path} is not UTF-8: it is damaged; run its step again") from None

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read the record from `folder`; None if it is missing or cannot be read."""
        try:
            return cls.read(folder)
        except NotFound:
            return None
