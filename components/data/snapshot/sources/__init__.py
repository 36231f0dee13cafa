"""Data sources: one module per scheme of `snapshot.source`, found by its file name.

A source is a module that implements the protocol `Source`. It fetches remote data as files of a supported format, so that the same
strict readers check every source. Modules with a leading underscore are shared helpers. Importing this package or a source does not
import a driver or client.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from components.core import plugins
from components.core.errors import BadParams
from components.data.snapshot.settings import SnapshotParams

FOLDER = Path(__file__).parent
NO_SCHEME = "files"
"""The source of an address without a scheme."""


@dataclass(frozen=True)
class SourceRequest:
    """A request to a source: local paths are relative to `root`, and `environment` contains the secrets."""

    settings: SnapshotParams
    root: Path
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """`snapshot.source` unchanged."""
        return self.settings.source

    @property
    def location(self) -> str:
        """The address without its scheme."""
        return self.address.partition("://")[2] if "://" in self.address else self.address


@dataclass(frozen=True)
class FetchedFiles:
    """The local files of a source, all of one format; `files` maps each path to its name in messages.

    The manifest records `source` (a permanent address if the source has one) and `format`. `cards` are folders that may contain a
    dataset card. `relist` lists the files again, if they can change.
    """

    files: Mapping[Path, str]
    source: str
    format: str
    cards: Sequence[Path] = ()
    relist: Callable[[], Sequence[Path]] | None = None


class Source(Protocol):
    """The interface of a source module. No secret may appear in messages or results."""

    SETTINGS: frozenset[str]
    """The fields of `snapshot` that only this source reads; other sources refuse them."""

    def fetch(self, request: SourceRequest, folder: Path) -> FetchedFiles:
        """Fetch the data as one or more local files; download remote files to `folder`, which is empty.

        Raises:
            BadParams: a setting does not fit.
            BadSource: the data is missing, forbidden, or not a table.
            Unavailable: the source is unreachable or changed while it was read; a retry can succeed.
        """

    def describe(self, request: SourceRequest) -> str:
        """Return a short description of the data without reading all of it; raises as `fetch` does."""


def available() -> list[str]:
    """Return the sorted names of all sources: the modules in this folder."""
    return plugins.names(FOLDER)


def source_of(settings: SnapshotParams) -> Source:
    """Return the source for the scheme of `snapshot.source`.

    Raises:
        BadParams: no source has this scheme, or a setting belongs to another source.
    """
    name = settings.scheme or NO_SCHEME
    if name not in available() or settings.scheme == NO_SCHEME:
        # The message omits the address: that of a database or a store may contain a password.
        raise BadParams(
            f"params.yaml: snapshot.source starts with {name[:20]}://; expected a file, glob or folder, or an address that starts with "
            f"{', '.join(f'{scheme}://' for scheme in available() if scheme != NO_SCHEME)} (a database is sql://NAME)"
        )
    source = load(name)
    for scheme in available():
        for field in sorted(load(scheme).SETTINGS - source.SETTINGS):
            if getattr(settings, field) is not None:
                actual = f"{name}://" if settings.scheme else "no scheme"
                raise BadParams(f"params.yaml: snapshot.{field} needs a snapshot.source that starts with {scheme}://, found {actual}")
    return source


def load(name: str) -> Source:
    """Return the source `name`, one of `available()`."""
    return cast(Source, plugins.load(__name__, name, available(), "source"))
