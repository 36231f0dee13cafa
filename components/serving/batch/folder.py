"""A folder of Parquet parts: each written once, by rename, and a manifest at the very end.

While it is being filled `progress.json` says what was begun, and `parts.jsonl` has a line for each part that is whole.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from components.artifacts.manifest import FilePart
from components.core.atomic import DISK_FULL, replacing, write_text
from components.core.errors import BadInput, RetuneError, Unavailable
from components.core.hashing import digest_file
from components.serving.batch.records import Done, RowCounts, ScoringManifest, ScoringPlan

REPLACED = "replaced.json"  # what a manifest is called while its parts are being removed
_PARTS, _QUARANTINE = "parts.jsonl", "quarantine.parquet"
_OURS = re.compile(r"(((part|quarantine)-\d{5,}|quarantine)\.parquet|parts\.jsonl)(\.partial)?|(manifest|progress)\.json\.partial")
A = TypeVar("A", ScoringManifest, ScoringPlan)


class FolderTarget:
    """The folder at `path`, made where it is not there."""

    adds: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: list[Done] = []

    def __str__(self) -> str:
        """Return the path."""
        return str(self._path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder: two processes would mix their parts. The kernel lets go of it however this one ends.

        Raises:
            Unavailable: another process holds it.
            BadInput: it is no folder, or none can be made there.
        """
        made = not self._path.exists()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            opened = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise BadInput(f"{self}: no folder can be made here: {error.strerror or error}") from None
        try:
            self._lock(opened)
            yield
        finally:
            if made:
                with suppress(OSError):  # as it was before, where nothing was written
                    self._path.rmdir()
            os.close(opened)

    def _lock(self, opened: int) -> None:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(opened).st_ino == self._path.stat().st_ino  # not one that was removed meanwhile
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise Unavailable(f"{self}: another process is scoring into this folder; wait for it or end it")

    def standing(self) -> ScoringPlan | None:
        """Return what was begun here and is not complete; None where the folder is empty.

        Raises:
            BadInput: it is complete, was being replaced, or holds what `retune score` has not written.
        """
        there = self._names()
        if ScoringManifest.FILE in there:
            manifest = self._record(ScoringManifest.FILE, ScoringManifest)
            self._tidy()
            raise BadInput(f"{self} is complete: {manifest.scored:,} rows scored by {manifest.model_uri}; --replace begins anew")
        if ScoringPlan.FILE in there:
            return self._record(ScoringPlan.FILE, ScoringPlan)
        if REPLACED in there:
            raise BadInput(f"{self}: what was here was being replaced; --replace goes on with that")
        if there:
            raise BadInput(self._foreign(there[0]))
        return None

    def clear(self) -> None:
        """Remove what `retune score` has written here; what a kill leaves is known for what it is.

        Raises:
            BadInput: the folder holds other things and nothing of ours.
        """
        there = self._names()
        records = [name for name in (ScoringManifest.FILE, ScoringPlan.FILE, REPLACED) if name in there]
        if there and not records:
            raise BadInput(self._foreign(there[0]))
        for name in records:
            self._check(name)
        for name in records:
            os.replace(self._path / name, self._path / REPLACED)
        for name in filter(_OURS.fullmatch, there):
            (self._path / name).unlink()

    def begin(self, plan: ScoringPlan) -> None:
        """Write down what is begun, in a folder that is empty or cleared."""
        with self._writing():
            plan.write(self._path)
            (self._path / REPLACED).unlink(missing_ok=True)

    def go_on(self) -> RowCounts:
        """Return what of the input is in parts that are whole, from the first on; what follows is written again."""
        (self._path / REPLACED).unlink(missing_ok=True)
        self._done = list(self._whole())
        with self._writing():
            write_text(self._path / _PARTS, "".join(f"{done.model_dump_json()}\n" for done in self._done))
        scored = sum(done.part.rows or 0 for done in self._done)
        return RowCounts(scored + sum(done.quarantined for done in self._done), scored)

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Write the next part, and the rows of its share that go to quarantine; the numbers of the rows are told by their order.

        Raises:
            Unavailable: the disk is full; the parts before are whole.
        """
        number = len(self._done)
        with self._writing():
            if bad.num_rows:
                self._write(bad, f"quarantine-{number:05}.parquet")
            self._done.append(Done(part=self._write(scored, f"part-{number:05}.parquet"), quarantined=bad.num_rows))
            with (self._path / _PARTS).open("a", encoding="utf-8") as file:
                file.write(self._done[-1].model_dump_json() + "\n")

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Bring the quarantine together, write the manifest with all parts, and return it."""
        with self._writing():
            quarantine = self._gather() if manifest.quarantined else None
            whole = manifest.model_copy(update={"parts": tuple(done.part for done in self._done), "quarantine": quarantine})
            whole.write(self._path)
        self._tidy()
        return whole

    def _names(self) -> list[str]:
        """Return what is there, but for a record whose writing was cut short."""
        return sorted({path.name for path in self._path.iterdir()} - {f"{ScoringPlan.FILE}.partial"})

    def _foreign(self, name: str) -> str:
        return f"{self} holds {name}, and is no folder that `retune score` wrote; name another one, or an empty one"

    def _record(self, name: str, kind: type[A]) -> A:
        """Return a record of ours; other programs, too, call a file so.

        Raises:
            BadInput: it is none.
        """
        try:
            return kind.model_validate_json((self._path / name).read_bytes())
        except ValidationError:
            raise BadInput(self._foreign(name)) from None

    def _check(self, name: str) -> None:
        """Check that a record is ours; what is being replaced was a plan or a manifest.

        Raises:
            BadInput: it is none.
        """
        text = (self._path / name).read_bytes()
        kinds: list[type[ScoringPlan] | type[ScoringManifest]] = [
            kind for kind in (ScoringPlan, ScoringManifest) if name in (kind.FILE, REPLACED)
        ]
        for kind in kinds:
            with suppress(ValidationError):
                kind.model_validate_json(text)
                return
        raise BadInput(self._foreign(name))

    def _whole(self) -> Iterator[Done]:
        path = self._path / _PARTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else ()):
            try:
                done = Done.model_validate_json(line)
            except ValidationError:  # the line that was being written
                return
            file, apart = self._path / done.part.name, self._path / f"quarantine-{number:05}.parquet"
            if not file.is_file() or digest_file(file) != done.part.sha256 or (done.quarantined and not apart.is_file()):
                return
            yield done

    def _write(self, table: pa.Table, name: str) -> FilePart:
        with replacing(self._path / name) as partial:
            with partial.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            return FilePart(name=name, sha256=digest_file(partial), bytes=partial.stat().st_size, rows=table.num_rows)

    def _gather(self) -> FilePart:
        """Return the one file of all rows in quarantine."""
        pieces = [self._path / f"quarantine-{number:05}.parquet" for number, done in enumerate(self._done) if done.quarantined]
        with replacing(self._path / _QUARANTINE) as partial:
            with pq.ParquetWriter(partial, pq.read_schema(pieces[0]), compression="zstd") as writer:
                for piece in pieces:
                    writer.write_table(pq.read_table(piece))
            rows = sum(done.quarantined for done in self._done)
            return FilePart(name=_QUARANTINE, sha256=digest_file(partial), bytes=partial.stat().st_size, rows=rows)

    def _tidy(self) -> None:
        """Remove what only served the way to the manifest."""
        for path in [*self._path.glob("quarantine-*.parquet"), *self._path.glob("*.partial")]:
            if _OURS.fullmatch(path.name):
                path.unlink()
        for name in (_PARTS, ScoringPlan.FILE, REPLACED):
            (self._path / name).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL:
                raise Unavailable(f"{self}: no room ({error.strerror}); the parts so far are whole, run again to go on") from error
            raise RetuneError(f"{self} cannot be written: {error}") from error
