"""Where data may lie: one file a kind of source, found by the scheme of `snapshot.source`; there is no registry to edit.

A source is a module whose public names fit the protocol `Source`. It brings what lies elsewhere as files of a format that there is a
strict reader for, so that whatever is checked of a file is checked of it too. What several share stands in files with a leading
underscore. Importing this package, or a source, imports no driver and no client.
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
    """What is asked of a source: `root` is what local paths are relative to, `environment` where secrets stand."""

    settings: SnapshotParams
    root: Path
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """`snapshot.source` as it is written."""
        return self.settings.source

    @property
    def place(self) -> str:
        """The address without its scheme."""
        return self.address.partition("://")[2] if "://" in self.address else self.address


@dataclass(frozen=True)
class FetchedFiles:
    """What a source has brought, all of one format: `files` gives each local file the name that messages call it by.

    `source` and `format` are what the manifest says of the data: where they lie, for ever if the source can tell, and in which form.
    `cards` are folders in which a description of the data set may be; `listed` finds the files again, where there can be others later.
    """

    files: Mapping[Path, str]
    source: str
    format: str
    cards: Sequence[Path] = ()
    listed: Callable[[], Sequence[Path]] | None = None


class Source(Protocol):
    """What a source's file offers, as names of the module. No secret may stand in a message or in what is returned."""

    SETTINGS: frozenset[str]
    """The fields of `snapshot` that only this kind of source reads; where they are set, another kind is refused."""

    def bring(self, asked: SourceRequest, folder: Path) -> FetchedFiles:
        """Bring the data as local files, at least one; what is not local yet goes into `folder`, which is there and empty.

        Raises:
            BadParams: a setting does not fit.
            BadSource: there is no such thing, it must not be read, or it is no table.
            Unavailable: it is out of reach, or was changed while it was read; a retry can mend it.
        """

    def look(self, asked: SourceRequest) -> str:
        """Say in a few words what is there, without reading all of it; raises as `bring` does."""


def available() -> list[str]:
    """Return the names of all sources, sorted: the files of this folder."""
    return plugins.names(FOLDER)


def source_of(settings: SnapshotParams) -> Source:
    """Return the source that `snapshot.source` names by its scheme.

    Raises:
        BadParams: there is none of that name, or a setting is given that it does not read.
    """
    name = settings.scheme or NO_SCHEME
    if name not in available() or settings.scheme == NO_SCHEME:
        # The address is not shown: where it is a database's or a store's own, a password may stand in it.
        raise BadParams(
            f"params.yaml: snapshot.source begins with {name[:20]}://; expected a file, a glob or a folder, or an address that begins with "
            f"{', '.join(f'{each}://' for each in available() if each != NO_SCHEME)} (a database is named as sql://NAME)"
        )
    found = load(name)
    for other in available():
        for field in sorted(load(other).SETTINGS - found.SETTINGS):
            if getattr(settings, field) is not None:
                where = f"{name}://" if settings.scheme else "no scheme"
                raise BadParams(f"params.yaml: snapshot.{field} goes with a snapshot.source that begins with {other}://, found {where}")
    return found


def load(name: str) -> Source:
    """Return the source called `name`, which is one of `available()`."""
    return cast(Source, plugins.load(__name__, name, available(), "source"))
