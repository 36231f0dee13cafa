"""`python -m components STEP IN… OUT`: the launcher of steps, used by `dvc repro`, flows and CI.

A step is the function of the same name in its module of `STEPS`. Its `Path` parameters are the folders of the command line;
its keyword-only parameters are the sections of params.yaml that it reads.
"""

from components.core.process import die_with_parent, quiet_environment

if __name__ == "__main__":  # before the slow imports below
    die_with_parent()

import contextlib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.core.documents import read_yaml
from components.core.errors import BadParams, RetuneError
from components.core.exits import run_command
from components.core.hashing import digest_file
from components.core.locks import lock
from components.core.section import Section, nearest
from components.steps import STEPS

PARAMS = Path("params.yaml")
CODE = Path(__file__).parent
LOCK_SECONDS = 10.0  # how long to wait for another writer


def main() -> int:
    """Run one step and return the exit code: 0, or that of the error, which is printed as one message."""
    quiet_environment()
    os.environ["HF_HUB_OFFLINE"] = "1"  # models of the hub are pinned before the stages
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.captureWarnings(True)
    for name in ("httpx", "filelock", "great_expectations", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return run_command(lambda: run(*sys.argv[1:]))


def run(name: str = "", *folders: str) -> None:
    """Call the step `name` on `folders` with its sections of params.yaml.

    Raises:
        BadParams: the step is unknown, the number of folders is wrong, or a section is invalid.
        Unavailable: another process is writing to the same output folder.
    """
    step = find(name)
    expected = [p.name for p in inspect.signature(step, eval_str=True).parameters.values() if p.annotation is Path]
    if len(folders) != len(expected):
        raise BadParams(f"`{name}` expects the folders {' '.join(expected).upper()}, found {len(folders)}: {' '.join(folders) or 'none'}")
    sections = read_sections(step, PARAMS)
    with output_lock(Path(folders[-1])), refuse_edits(step, sections):
        step(*map(Path, folders), **sections)


def find(name: str) -> Callable[..., None]:
    """Return the function of the step `name`; imports only its module, since torch and Great Expectations take seconds to import."""
    if name not in STEPS:
        raise BadParams(f"{name!r} is not a step{nearest(name, list(STEPS))}")
    function: Callable[..., None] = getattr(importlib.import_module(STEPS[name]), name)
    return function


def read_sections(step: Callable[..., None], path: Path) -> dict[str, Any]:
    """Return the keyword arguments of `step` from params.yaml: sections as their class, other values unchanged.

    An argument with a default may be missing.
    """
    if not path.exists():
        raise BadParams(f"{path.absolute()} is missing; `retune init DATA` writes one")
    raw = read_yaml(path) or {}
    if not isinstance(raw, dict):
        raise BadParams(f"{path}: expected a mapping with one section per step, found {type(raw).__name__}")
    sections: dict[str, Any] = {}
    for parameter in inspect.signature(step, eval_str=True).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.name not in raw and parameter.default is not parameter.empty:
            continue
        if parameter.name not in raw:
            raise BadParams(f"{path}: the section {parameter.name!r} is missing")
        value, annotation = raw[parameter.name], parameter.annotation
        section = issubclass(annotation, Section)
        sections[parameter.name] = annotation.parse(value, parameter.name) if section else annotation(value)
    return sections


@contextlib.contextmanager
def refuse_edits(step: Callable[..., None], sections: dict[str, Any]) -> Iterator[None]:
    """Fail if code or settings of the step are edited while it runs, since DVC hashes them after a stage.

    Raises:
        RetuneError: DVC then records nothing, and the next `dvc repro` runs the step again.
    """
    before = sources()
    yield
    loaded = {module.__file__ for name, module in sys.modules.items() if name.startswith("components.")}
    now = sources()
    edited = [str(path.relative_to(CODE.parent)) for path in before if str(path) in loaded and now.get(path) != before[path]]
    edited += [str(PARAMS)] * (not _reads_as(step, sections))
    if edited:
        raise RetuneError(f"{', '.join(edited)} changed while {step.__name__} was running, so its result is discarded; run again")


def _reads_as(step: Callable[..., None], sections: dict[str, Any]) -> bool:
    try:
        return read_sections(step, PARAMS) == sections
    except BadParams:
        return False


def sources() -> dict[Path, str]:
    """Return the hash of every source file except the launcher."""
    return {path: digest_file(path) for path in CODE.rglob("*.py") if path != Path(__file__)}


def output_lock(out: Path) -> contextlib.AbstractContextManager[None]:
    """Lock an output folder against a stage that outlived its DVC process."""
    path = Path("var/locks") / f"{out.as_posix().strip('/').replace('/', '-')}.lock"
    return lock(path, LOCK_SECONDS, busy=f"another process is writing {out} (it holds {path}); wait for it or end it, then run again")


if __name__ == "__main__":
    sys.exit(main())
