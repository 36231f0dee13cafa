"""Prefect drives DVC: one `dvc repro STAGE` a task, in a process group of its own that never outlives the run."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from components.core.documents import read_yaml
from components.core.errors import BadInput, BadParams, Cancelled, NotFound, RetuneError, StageFailed, Unavailable
from components.core.process import end_children, end_group, inherited_environment, tied_command
from components.ledger.chain import KEY
from components.steps import STAGES
from flows.dvc_adapter.config import cache_folder

log = logging.getLogger(__name__)

CHATTER = re.compile(  # what DVC says at every call; the task says what became of its stage
    r"'.*\.dvc' didn't change|Stage '.*' didn't change|(Updating|Generating) lock file|Data and pipelines are up to date|> exec python"
    r"|To track the changes|\tgit add|To enable auto staging|\tdvc config core.autostage|Use `dvc push`"
)
LONGEST = 1_000  # characters of a message that DVC does not mark as one
GRACE = 5.0  # seconds between SIGINT and SIGKILL


class StageResult(StrEnum):
    """What became of a stage."""

    RAN = "ran"
    RESTORED = "restored from the cache"
    UNCHANGED = "unchanged"


class RunningStage:
    """The child processes of this run, so that a watcher thread can end them; once cancelled, no new one starts."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.cancelled = threading.Event()

    @contextlib.contextmanager
    def start(self, command: list[str], cwd: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Start a command in its own process group, tied to the life of this process; end the whole group on any exception."""
        with self._lock:
            if self.cancelled.is_set():
                raise Cancelled("the run was cancelled")
            child = subprocess.Popen(
                tied_command(command),
                cwd=cwd,
                env={**environment(cwd), **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._children.add(child)
        try:
            yield child
        except BaseException:  # Ctrl-C, SIGTERM and a cancelled run must not leave a training behind
            end_group(child, GRACE)
            raise
        finally:
            self._children.discard(child)
            if child.stdout is not None:
                child.stdout.close()

    def cancel(self) -> None:
        """End every child and refuse new ones."""
        with self._lock:
            self.cancelled.set()
            children = list(self._children)
        for child in children:
            end_group(child, GRACE)
        end_children()  # a registered version that is being asked


RUNNING = RunningStage()


def environment(cwd: Path) -> dict[str, str]:
    """Return the environment of a child: `python` is this interpreter, and the code is that of the folder it runs in."""
    first = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(cwd)}
    paths = {name: os.pathsep.join(filter(None, (folder, os.environ.get(name)))) for name, folder in first.items()}
    own = {name: value for name, value in inherited_environment().items() if name != KEY}  # no stage signs the ledger
    return own | paths | {"PYTHONUNBUFFERED": "1"}


def check_pipeline(root: Path) -> None:
    """Check before any work that DVC can bring every stage of a run up to date.

    Raises:
        BadInput: dvc.yaml lacks a stage, or has one frozen, which DVC takes for up to date whatever changed; or `data` is a link.
    """
    file = root / "dvc.yaml"
    try:
        found = read_yaml(file)
    except BadParams as error:
        raise BadInput(f"{error}; `git checkout dvc.yaml` restores it where it was committed") from None
    stages = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(stages, dict):
        raise BadInput(f"{file} has no stages: `git checkout dvc.yaml` restores it where it was committed")
    if missing := [stage for stage in STAGES if stage not in stages]:
        there = ", ".join(stages) or "none"
        raise BadInput(
            f"{file} has no stage {', '.join(missing)}; it has {there}: a run needs {', '.join(STAGES)}. Give a stage that was renamed its "
            "name back, or `git checkout dvc.yaml`"
        )
    frozen = [stage for stage, told in stages.items() if isinstance(told, dict) and told.get("frozen")]
    if ours := [stage for stage in frozen if stage in STAGES]:
        raise BadInput(
            f"{file}: {', '.join(ours)} is frozen, so what it made would stand whatever changed: `dvc unfreeze {' '.join(ours)}`"
        )
    for stage in frozen:
        log.warning("%s: %s is frozen: what it last wrote is taken, whatever has changed since", file, stage)
    if (data := root / "data").is_symlink():
        raise BadInput(
            f"{data} is a link to {data.resolve()}, and DVC keeps no data behind a link: make it a folder; what takes room is DVC's cache, "
            "which `dvc config --local cache.dir FOLDER` moves to another disk"
        )


def reproduce_stage(stage: str, root: Path) -> StageResult:
    """Bring one stage and what it depends on up to date, and log its output line by line.

    Raises:
        BadInput, StageFailed: with the message of the step that failed.
        Unavailable: something was busy; a retry can mend it.
        Cancelled: the run was cancelled meanwhile.
    """
    lines = dvc(["--wait-for-lock", "repro", stage], root, what=f"the stage {stage}")
    said = "\n".join(lines)
    if f"Running stage '{stage}'" in said:
        return StageResult.RAN
    if f"Stage '{stage}' is cached" in said:
        return StageResult.RESTORED
    return StageResult.UNCHANGED


def pull(target: str, root: Path) -> None:
    """Bring what is gone from the cache back from DVC's remote, and lay it out: of a stage, or of a .dvc file.

    Raises:
        StageFailed, Unavailable, Cancelled: as for `reproduce_stage`.
    """
    dvc(["--wait-for-lock", "pull", "--force", target], root, what=f"dvc pull {target}", level=logging.DEBUG)


def in_remote(root: Path, objects: Collection[str]) -> set[str]:
    """Return those objects that DVC's default remote has.

    Raises:
        Unavailable: it cannot be asked.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return set(repo.cloud.get_remote_odb(None).oids_exist(list(objects)))
    except (DvcException, OSError, ImportError) as error:
        raise Unavailable(f"DVC's remote cannot be asked: {' '.join(str(error).split())}") from None


def add_to_dvc(folders: Sequence[Path], root: Path) -> None:
    """Put folders under DVC; they were made by effects and are inputs of the stages."""
    names = [str(folder.relative_to(root)) for folder in folders]
    dvc(["--wait-for-lock", "add", *names], root, what=f"dvc add {' '.join(names)}", level=logging.DEBUG)


def changed(root: Path) -> frozenset[str]:
    """Return what of the stages of a run, and of what they hang on, is not as DVC knows it: names of stages, and of folders' .dvc files."""
    foreseen = _FORESEEN.pop(root, None)
    with contextlib.suppress(RetuneError):  # what failed then is asked again, and says why
        if foreseen is not None and (found := foreseen.answer()) is not None:
            return found
    return _ask_changed(root)


def prefetch_dvc_status(root: Path, marks: Sequence[Path]) -> None:
    """Ask what `changed` will ask, while this process imports what it needs; once, for as long as the files `marks` are as they are."""
    _FORESEEN[root] = _Foreseen(root, marks)


class _Foreseen:
    """A question to DVC that a thread asks, so that an unchanged run waits for it or for its imports, and not for both."""

    def __init__(self, root: Path, marks: Sequence[Path]) -> None:
        self._marks, self._before = marks, _stamps(marks)
        self._found: Future[frozenset[str]] = Future()
        # No daemon: a run that ends before it asks waits for DVC, which leaves a file that it cannot read itself when it is killed.
        threading.Thread(target=self._ask, args=(root,), name="dvc-status").start()

    def _ask(self, root: Path) -> None:
        try:
            self._found.set_result(_ask_changed(root))
        except Exception as error:
            self._found.set_exception(error)

    def answer(self) -> frozenset[str] | None:
        """Return what DVC said, or None where the marks are others by now."""
        found = self._found.result()
        return found if _stamps(self._marks) == self._before else None


_FORESEEN: dict[Path, _Foreseen] = {}


def _stamps(marks: Sequence[Path]) -> list[tuple[int, int] | None]:
    return [(path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None for path in marks]


def _ask_changed(root: Path) -> frozenset[str]:
    what = ["status", "--json", "--no-updates", "--with-deps", *STAGES]  # as `dvc repro`, it asks no other repository for news
    said = dvc(["--wait-for-lock", *what], root, what="dvc status", level=logging.DEBUG)
    try:
        return frozenset(json.loads(next((line for line in reversed(said) if line.startswith("{")), "")))
    except ValueError as error:
        raise StageFailed(f"`dvc {' '.join(what)}` said what is no JSON: {' '.join(said) or 'nothing'}") from error


def dvc(
    arguments: list[str], root: Path, what: str, level: int = logging.INFO, variables: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Run a DVC command in `root`, with more environment `variables`; log its output and return its lines.

    Raises:
        StageFailed, Unavailable, Cancelled: as for `reproduce_stage`.
    """
    lines, code = _output_of(arguments, root, level, variables)
    if code != 0 and any("Unable to read RWLock-file" in line for line in lines):
        (root / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        log.warning("%s: a killed DVC left %s torn, which lists the paths in use: it was removed", what, root / ".dvc/tmp/rwlock")
        lines, code = _output_of(arguments, root, level, variables)
    if RUNNING.cancelled.is_set():
        raise Cancelled(f"{what} was cancelled; run again to go on where it stopped")
    if code != 0:
        raise _failure(lines, what, code, root)
    return lines


def _output_of(arguments: list[str], root: Path, level: int, variables: Mapping[str, str]) -> tuple[list[str], int]:
    """Run a DVC command, log its output, and return its lines and its exit code."""
    lines: list[str] = []
    failing = False
    with RUNNING.start([sys.executable, "-m", "dvc", *arguments], root, variables) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if text := line.rstrip():
                lines.append(text)
                failing = failing or text.startswith("error: ")  # from here on it is the error's own text, told once by who catches it
                log.log(logging.DEBUG if failing or CHATTER.match(text) else level, "%s", text)
        return lines, child.wait()


def _failure(lines: list[str], what: str, code: int, root: Path) -> Exception:
    said = "\n".join(lines)
    exited = re.search(r"exited with (-?\d+)", said)
    step = re.search(r"^error: (.*?)(?=^ERROR: |\Z)", said, re.MULTILINE | re.DOTALL)
    dvc_says = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if step is None and (damage := _damage(root)):
        return BadParams(f"{what} failed: {damage}")
    plain = lines[-1:] if "Traceback (most recent call last):" in lines else [line.strip() for line in lines]
    message = step.group(1).strip() if step else "; ".join(dvc_says) or " ".join(filter(None, plain))[:LONGEST] or f"exit code {code}"
    if exited and int(exited.group(1)) in (-signal.SIGKILL, 128 + signal.SIGKILL):
        message = f"it was killed (signal 9), for lack of memory or by hand; run again to go on. {message}"
    kinds = {kind.exit_code: kind for kind in (BadInput, Unavailable, Cancelled)}
    return kinds.get(int(exited.group(1)) if exited else 0, StageFailed)(f"{what} failed: {message}")


def object_path(root: Path, md5: str) -> Path:
    """Return where the cache of `root` keeps an object."""
    return cache_folder(root) / "files/md5" / md5[:2] / md5[2:]


def _damage(root: Path) -> str | None:
    """Say which of the files that DVC reads is damaged and where, which DVC itself does not."""
    for path in (root / "dvc.yaml", root / "dvc.lock", root / "params.yaml", *sorted((root / "data").glob("*.dvc"))):
        if not path.is_file():
            continue
        try:
            found = read_yaml(path, as_dvc=True)
        except BadParams as error:
            return f"{error}; `git checkout` restores the file where it was committed"
        if not isinstance(found, dict):
            return f"{path} is damaged: expected a mapping, found {type(found).__name__}; `git checkout` restores it where it was committed"
    return None


def cached_object(root: Path, md5: str) -> Path:
    """Return the file in DVC's cache whose bytes have this md5; `….dir` is the listing of a folder.

    Raises:
        NotFound: it is gone, or its bytes are others.
    """
    path = object_path(root, md5)
    if not path.is_file():
        raise NotFound(f"{md5} is not in DVC's cache ({path}): `dvc pull` brings it back if it was pushed")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5.removesuffix(".dir"):
        raise NotFound(f"{path} in DVC's cache is corrupt (its md5 is {found}): delete it, and `dvc pull` brings it back")
    return path


def cached_listing(root: Path, md5: str) -> dict[str, str]:
    """Return the md5 of every file of a folder in DVC's cache, by its path below the folder.

    Raises:
        NotFound: as for `cached_object`.
    """
    return {entry["relpath"]: entry["md5"] for entry in json.loads(cached_object(root, md5).read_text(encoding="utf-8"))}


def cached_file(root: Path, md5: str, name: str = "") -> Path:
    """Return the cache's own copy of the file `name` of the folder `md5` (`….dir`), or of the file `md5`: to be read, never written.

    Raises:
        NotFound: it is gone or corrupt, or the folder has no such file.
    """
    if not md5.endswith(".dir"):
        return cached_object(root, md5)
    listing = cached_listing(root, md5)
    if name not in listing:
        raise NotFound(f"the folder {md5} in DVC's cache has no {name}; it has {', '.join(sorted(listing)) or 'nothing'}")
    return cached_object(root, listing[name])


def cached_folder(root: Path, md5: str, into: Path) -> Path:
    """Copy a folder of DVC's cache into `into`, which is made where it is not there, and return it.

    Raises:
        NotFound: its listing or a file of it is gone or corrupt; nothing was written.
    """
    files = {name: cached_object(root, object_md5) for name, object_md5 in cached_listing(root, md5).items()}
    into.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return into
