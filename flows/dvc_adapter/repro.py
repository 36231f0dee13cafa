"""Run DVC commands: one `dvc repro STAGE` per task, in a process group that never outlives the run."""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from components.core.atomic import write_text
from components.core.documents import read_yaml
from components.core.errors import BadInput, BadParams, Cancelled, RetuneError, StageFailed, Unavailable
from components.core.process import end_children, end_group, inherited_environment, is_alive, tied_command
from components.ledger.chain import KEY
from components.steps import STAGES

log = logging.getLogger(__name__)

CHATTER = re.compile(  # routine messages of DVC; the task logs the stage's result itself
    r"'.*\.dvc' didn't change|Stage '.*' didn't change|(Updating|Generating) lock file|Data and pipelines are up to date|> exec python"
    r"|To track the changes|\tgit add|To enable auto staging|\tdvc config core.autostage|Use `dvc push`"
)
LONGEST = 1_000  # characters of a message without DVC's "ERROR: "
GRACE = 5.0  # seconds between SIGINT and SIGKILL


class StageResult(StrEnum):
    """How a stage was brought up to date."""

    RAN = "ran"
    RESTORED = "restored from the cache"
    UNCHANGED = "unchanged"


class RunningStage:
    """The child processes of this run, which another thread can end; once cancelled, no new one starts."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.cancelled = threading.Event()

    @contextlib.contextmanager
    def start(self, command: list[str], cwd: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        """Start a command in its own process group, tied to this process; end the group on any exception."""
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
        except BaseException:  # Ctrl-C, SIGTERM and a cancelled run must end the training
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
        end_children()  # workers of registered versions


RUNNING = RunningStage()


def environment(cwd: Path) -> dict[str, str]:
    """Return the environment of a child: `python` is this interpreter, and code is imported from `cwd`."""
    first = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(cwd)}
    paths = {name: os.pathsep.join(filter(None, (folder, os.environ.get(name)))) for name, folder in first.items()}
    inherited = {name: value for name, value in inherited_environment().items() if name != KEY}  # stages must not sign the ledger
    return inherited | paths | {"PYTHONUNBUFFERED": "1"}


def check_pipeline(root: Path) -> None:
    """Raise BadInput if DVC cannot bring every stage up to date: one is missing or frozen, or `data` is a link."""
    file, restore = root / "dvc.yaml", "`git checkout dvc.yaml` restores it if it was committed"
    try:
        definition = read_yaml(file)
    except BadParams as error:
        raise BadInput(f"{error}; {restore}") from None
    stages = definition.get("stages") if isinstance(definition, dict) else None
    if not isinstance(stages, dict):
        raise BadInput(f"{file} has no stages: {restore}")
    if missing := [stage for stage in STAGES if stage not in stages]:
        names = ", ".join(stages) or "none"
        raise BadInput(
            f"{file} has no stage {', '.join(missing)}; it has {names}: a run needs {', '.join(STAGES)}. Restore the name of a renamed "
            "stage, or run `git checkout dvc.yaml`"
        )
    frozen = [stage for stage, entry in stages.items() if isinstance(entry, dict) and entry.get("frozen")]
    if ours := [stage for stage in frozen if stage in STAGES]:
        raise BadInput(f"{file}: {', '.join(ours)} is frozen, so its output would never be updated: run `dvc unfreeze {' '.join(ours)}`")
    for stage in frozen:
        log.warning("%s: %s is frozen: its last output is used even if its inputs changed", file, stage)
    if (data := root / "data").is_symlink():
        raise BadInput(
            f"{data} is a link to {data.resolve()}, but DVC tracks no data behind a link: make it a folder; to save space, move the cache: "
            "`dvc config --local cache.dir FOLDER`"
        )


def reproduce_stage(stage: str, root: Path) -> StageResult:
    """Bring a stage and its dependencies up to date, and log the output line by line.

    Raises:
        BadInput, StageFailed: with the message of the step that failed.
        Unavailable: a resource was busy; retry later.
        Cancelled: the run was cancelled.
    """
    output = "\n".join(dvc(["--wait-for-lock", "repro", stage], root, what=f"the stage {stage}"))
    if f"Running stage '{stage}'" in output:
        return StageResult.RAN
    return StageResult.RESTORED if f"Stage '{stage}' is cached" in output else StageResult.UNCHANGED


def pull(target: str, root: Path) -> None:
    """Pull a stage's outputs or a .dvc file from DVC's remote, and check them out; raise the errors of `dvc`."""
    dvc(["--wait-for-lock", "pull", "--force", target], root, what=f"dvc pull {target}", level=logging.DEBUG)


def in_remote(root: Path, objects: Collection[str]) -> set[str]:
    """Return those objects that are in DVC's default remote; raise Unavailable if it cannot be reached."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return set(repo.cloud.get_remote_odb(None).oids_exist(list(objects)))
    except (DvcException, OSError, ImportError) as error:
        raise Unavailable(f"DVC's remote cannot be reached: {' '.join(str(error).split())}") from None


def add_to_dvc(folders: Sequence[Path], root: Path) -> None:
    """Track folders with DVC: inputs that actions wrote for the stages."""
    names = [str(folder.relative_to(root)) for folder in folders]
    dvc(["--wait-for-lock", "add", *names], root, what=f"dvc add {' '.join(names)}", level=logging.DEBUG)


def changed(root: Path) -> frozenset[str]:
    """Return the changed stages of a run and the changed .dvc files they depend on, by name."""
    if prefetched := _PREFETCHED.pop(root, None):
        marks, before, query = prefetched
        with contextlib.suppress(RetuneError):  # a failed query is repeated, and then raises
            names = query.result()
            if _stamps(marks) == before:
                return names
    return _query_changed(root)


def prefetch_dvc_status(root: Path, marks: Sequence[Path]) -> None:
    """Start the query of `changed` in a thread, while this process imports; valid once, while the files `marks` are unchanged."""
    # A run that ends early waits for the thread: DVC leaves a corrupt file if it is killed.
    pool, before = ThreadPoolExecutor(1), _stamps(marks)
    _PREFETCHED[root] = marks, before, pool.submit(_query_changed, root)
    pool.shutdown(wait=False)


_PREFETCHED: dict[Path, tuple[Sequence[Path], list[tuple[int, int] | None], Future[frozenset[str]]]] = {}


def _stamps(marks: Sequence[Path]) -> list[tuple[int, int] | None]:
    return [(path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None for path in marks]


def _query_changed(root: Path) -> frozenset[str]:
    arguments = ["status", "--json", "--no-updates", "--with-deps", *STAGES]  # like `dvc repro`, it does not query other repositories
    lines = dvc(["--wait-for-lock", *arguments], root, what="dvc status", level=logging.DEBUG)
    try:
        return frozenset(json.loads(next((line for line in reversed(lines) if line.startswith("{")), "")))
    except ValueError as error:
        raise StageFailed(f"`dvc {' '.join(arguments)}` did not return valid JSON: {' '.join(lines) or 'no output'}") from error


def dvc(
    arguments: list[str], root: Path, what: str, level: int = logging.INFO, variables: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Run a DVC command with extra `variables`, log its output and return its lines; raise the errors of `reproduce_stage`."""
    lines, code = _output_of(arguments, root, level, variables)
    if code != 0 and _repair_rwlock(root / ".dvc/tmp/rwlock", "\n".join(lines), what):
        lines, code = _output_of(arguments, root, level, variables)
    if RUNNING.cancelled.is_set():
        raise Cancelled(f"{what} was cancelled; run again to resume it")
    if code != 0:
        raise _failure(lines, what, code, root)
    return lines


def _output_of(arguments: list[str], root: Path, level: int, variables: Mapping[str, str]) -> tuple[list[str], int]:
    """Run a DVC command, log its output, and return its lines and exit code."""
    lines, failing = list[str](), False
    with RUNNING.start([sys.executable, "-m", "dvc", *arguments], root, variables) as child:
        for text in filter(None, map(str.rstrip, child.stdout or ())):
            lines.append(text)
            failing = failing or text.startswith("error: ")  # from here on the caller reports the error's text
            log.log(logging.DEBUG if failing or CHATTER.match(text) else level, "%s", text)
        return lines, child.wait()


def _failure(lines: list[str], what: str, code: int, root: Path) -> BaseException:
    output = "\n".join(lines)
    match = re.search(r"exited with (-?\d+)", output)
    exited = int(match.group(1)) if match else 0
    step = re.search(r"^error: (.*?)(?=^ERROR: |\Z)", output, re.MULTILINE | re.DOTALL)
    dvc_errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if step is None and (damage := _damage(root)):
        return BadParams(f"{what} failed: {damage}")
    plain = lines[-1:] if "Traceback (most recent call last):" in lines else [line.strip() for line in lines]
    message = step.group(1).strip() if step else "; ".join(dvc_errors) or " ".join(filter(None, plain))[:LONGEST] or f"exit code {code}"
    if exited in (-signal.SIGKILL, 128 + signal.SIGKILL):
        message = f"it was killed (signal 9), manually or for lack of memory; run again to resume. {message}"
    errors = {error.exit_code: error for error in (BadInput, Unavailable, Cancelled)}
    return errors.get(exited, StageFailed)(f"{what} failed: {message}")


def _repair_rwlock(path: Path, output: str, what: str) -> bool:
    """Repair DVC's list of paths in use after a DVC was killed; return whether something was wrong with it.

    DVC drops processes that do not exist, but not those whose parent has not waited for them, as in a container without an init process.
    """
    if "Unable to read RWLock-file" in output:
        path.unlink(missing_ok=True)
        log.warning("%s: removed %s, the list of paths in use, which a killed DVC left incomplete", what, path)
        return True
    ended = {pid for pid in map(int, re.findall(r"\(PID (\d+)\): ", output)) if not is_alive(pid)}
    if not ended or "is being blocked by" not in output:
        return False
    used = json.loads(path.read_text(encoding="utf-8"))
    used["write"] = {used_path: user for used_path, user in used["write"].items() if user["pid"] not in ended}
    used["read"] = {used_path: [user for user in users if user["pid"] not in ended] for used_path, users in used["read"].items()}
    write_text(path, json.dumps(used))
    log.warning("%s: removed a killed DVC from %s, the list of paths in use", what, path)
    return True


def _damage(root: Path) -> str | None:
    """Describe the first damaged file among those that DVC reads, which DVC itself does not report."""
    paths = (root / "dvc.yaml", root / "dvc.lock", root / "params.yaml", *sorted((root / "data").glob("*.dvc")))
    for path in filter(Path.is_file, paths):
        try:
            content = read_yaml(path, as_dvc=True)
        except BadParams as error:
            return f"{error}; `git checkout` restores the file if it was committed"
        if not isinstance(content, dict):
            return f"{path} is damaged: expected a mapping, found {type(content).__name__}; `git checkout` restores it if it was committed"
    return None
