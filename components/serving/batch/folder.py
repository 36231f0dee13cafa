"""A folder of Parquet parts: each is written once, by rename, and a manifest completes the folder.

Until then `progress.json` contains the plan, and `parts.jsonl` one line per complete part.
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
from components.core.temporary import PREFIX
from components.serving.batch.records import Done, RowCounts, Scoring, ScoringManifest, ScoringPlan

REPLACED = "replaced.json"  # name of a manifest or plan while its parts are being removed
_PARTS, _QUARANTINE = "parts.jsonl", "quarantine.parquet"
_FILES = r"(((part|quarantine)-\d{5,}|quarantine)\.parquet|parts\.jsonl)"
_OWNER = rf"({PREFIX}.+\.)?"  # of a partial file; early releases wrote none
_OUR_FILES = re.compile(rf"{_FILES}|{_OWNER}({_FILES}|(manifest|progress)\.json)\.partial")
_PARTIAL_PLAN = re.compile(rf"{_OWNER}{re.escape(ScoringPlan.FILE)}\.partial")
A = TypeVar("A", bound=Scoring)


class FolderTarget:
    """The folder at `path`, created if it does not exist."""

    added_columns: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: list[Done] = []

    def __str__(self) -> str:
        return str(self._path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder; the kernel releases the lock however the process ends. Raise BadInput if the folder cannot be created."""
        created = not self._path.exists()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise BadInput(f"{self}: cannot create a folder here: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = os.fstat(descriptor).st_ino == self._path.stat().st_ino  # false if the folder was replaced meanwhile
            except (BlockingIOError, FileNotFoundError):
                held = False
            if not held:
                raise Unavailable(f"{self}: another process is scoring into this folder; wait for it or stop it")
            yield
        finally:
            if created:
                with suppress(OSError):  # remove it again if nothing was written
                    self._path.rmdir()
            os.close(descriptor)

    def unfinished(self) -> ScoringPlan | None:
        """Return the plan of an incomplete scoring; None if the folder is empty. Raise BadInput if it contains anything else."""
        names = self._names()
        if ScoringManifest.FILE in names:
            manifest = self._record(ScoringManifest.FILE, ScoringManifest)
            self._tidy()
            raise BadInput(f"{self} is complete: {manifest.scored:,} rows scored by {manifest.model_uri}; pass --replace to start again")
        if ScoringPlan.FILE in names:
            return self._record(ScoringPlan.FILE, ScoringPlan)
        if REPLACED in names:
            raise BadInput(f"{self}: an earlier --replace was interrupted; pass --replace to finish it")
        if names:
            raise BadInput(self._foreign(names[0]))
        return None

    def clear(self) -> None:
        """Remove the files that `retune score` wrote, even after an interruption; raise BadInput if there are only other files."""
        names = self._names()
        records = [name for name in (ScoringManifest.FILE, ScoringPlan.FILE, REPLACED) if name in names]
        if names and not records:
            raise BadInput(self._foreign(names[0]))
        for name in records:
            self._check(name)
        for name in records:
            os.replace(self._path / name, self._path / REPLACED)
        for name in filter(_OUR_FILES.fullmatch, names):
            (self._path / name).unlink()

    def begin(self, plan: ScoringPlan) -> None:
        """Write the plan into an empty or cleared folder."""
        with self._writing():
            plan.write(self._path)
            (self._path / REPLACED).unlink(missing_ok=True)

    def resume(self) -> RowCounts:
        """Return the rows of the input in complete parts; anything after the first incomplete part is written again."""
        (self._path / REPLACED).unlink(missing_ok=True)
        self._done = list(self._complete_parts())
        with self._writing():
            write_text(self._path / _PARTS, "".join(f"{done.model_dump_json()}\n" for done in self._done))
        scored = sum(done.part.rows or 0 for done in self._done)
        return RowCounts(scored + sum(done.quarantined for done in self._done), scored)

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Write the next part and its quarantined rows; `numbers` are implied by the order. Raise Unavailable if the disk is full."""
        number = len(self._done)
        with self._writing():
            if bad.num_rows:
                self._write(bad, f"quarantine-{number:05}.parquet")
            self._done.append(Done(part=self._write(scored, f"part-{number:05}.parquet"), quarantined=bad.num_rows))
            with (self._path / _PARTS).open("a", encoding="utf-8") as file:
                file.write(self._done[-1].model_dump_json() + "\n")

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Merge the quarantine into one file, write the manifest with all parts, and return it."""
        with self._writing():
            quarantine = self._merge_quarantine() if manifest.quarantined else None
            complete = manifest.model_copy(update={"parts": tuple(done.part for done in self._done), "quarantine": quarantine})
            complete.write(self._path)
        self._tidy()
        return complete

    def _names(self) -> list[str]:
        """Return the names of the files, except half-written plans."""
        return sorted(path.name for path in self._path.iterdir() if not _PARTIAL_PLAN.fullmatch(path.name))

    def _foreign(self, name: str) -> str:
        return f"{self} contains {name}, which `retune score` did not write; choose another folder, or an empty one"

    def _record(self, name: str, model: type[A]) -> A:
        """Return a record; raise BadInput if another program wrote a file of this name."""
        try:
            return model.model_validate_json((self._path / name).read_bytes())
        except ValidationError:
            raise BadInput(self._foreign(name)) from None

    def _check(self, name: str) -> None:
        """Check that `retune score` wrote a record; one that is being removed may be a plan or a manifest."""
        if name == REPLACED:
            with suppress(BadInput):
                self._record(name, ScoringPlan)
                return
        self._record(name, ScoringPlan if name == ScoringPlan.FILE else ScoringManifest)

    def _complete_parts(self) -> Iterator[Done]:
        path = self._path / _PARTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else ()):
            try:
                done = Done.model_validate_json(line)
            except ValidationError:  # the line of a killed process
                return
            file, quarantine = self._path / done.part.name, self._path / f"quarantine-{number:05}.parquet"
            if not file.is_file() or digest_file(file) != done.part.sha256 or (done.quarantined and not quarantine.is_file()):
                return
            yield done

    def _write(self, table: pa.Table, name: str) -> FilePart:
        with replacing(self._path / name) as partial:
            with partial.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            return FilePart(name=name, sha256=digest_file(partial), bytes=partial.stat().st_size, rows=table.num_rows)

    def _merge_quarantine(self) -> FilePart:
        """Merge the quarantine files of the parts into one."""
        pieces = [self._path / f"quarantine-{number:05}.parquet" for number, done in enumerate(self._done) if done.quarantined]
        with replacing(self._path / _QUARANTINE) as partial:
            with pq.ParquetWriter(partial, pq.read_schema(pieces[0]), compression="zstd") as writer:
                for piece in pieces:
                    writer.write_table(pq.read_table(piece))
            rows = sum(done.quarantined for done in self._done)
            return FilePart(name=_QUARANTINE, sha256=digest_file(partial), bytes=partial.stat().st_size, rows=rows)

    def _tidy(self) -> None:
        """Remove the files that are only needed until the manifest exists."""
        for path in [*self._path.glob("quarantine-*.parquet"), *self._path.glob("*.partial")]:
            if _OUR_FILES.fullmatch(path.name):
                path.unlink()
        for name in (_PARTS, ScoringPlan.FILE, REPLACED):
            (self._path / name).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL:
                raise Unavailable(
                    f"{self}: no space left ({error.strerror}); the parts so far are complete, run again to continue"
                ) from error
            raise RetuneError(f"{self} cannot be written: {error}") from error
