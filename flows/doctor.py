"""`retune doctor`: check everything that a run needs; one finding per check, ok or what to fix."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from components.core.documents import read_yaml
from components.core.errors import BadParams, NotFound, RetuneError
from components.core.output_dir import make_private
from components.core.process import is_alive
from components.core.temporary import temporary
from flows.project.workspace import Workspace
from flows.settings import read_settings

FREE_GIB = 5
MEMORY_GIB = 4


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    message: str


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Yield one finding per check; a check that raises gives a finding that is not ok."""
    checks: dict[str, Callable[[Workspace], str]] = {
        "python": python,
        "packages": packages,
        "settings": settings,
        "data": data,
        "base model": base_model,
        "disk": disk,
        "memory": memory,
        "state": state,
        "git": git,
        "DVC": dvc,
        "DVC lock": dvc_lock,
        "MLflow": mlflow,
        "ledger": ledger,
        "Prefect": prefect,
        "champions": champions,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, True, check(workspace))
        except RetuneError as error:
            yield Finding(name, False, str(error))
        except Exception as error:  # any failure is a finding
            yield Finding(name, False, f"{type(error).__name__}: {error}")


def python(_workspace: Workspace) -> str:
    """Return the version and path of the interpreter, which also runs the stages."""
    return f"{sys.version.split()[0]}, {sys.executable}"


def packages(_workspace: Workspace) -> str:
    """Check that the requirements of pyproject.toml are installed."""
    requirements = [Requirement(line) for line in importlib.metadata.requires("retune") or [] if "extra ==" not in line]
    wrong = []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if wrong:
        raise RetuneError(f"{'; '.join(wrong)}: run `make setup`")
    return f"{len(requirements)} as pyproject.toml requires, torch {importlib.metadata.version('torch')}"


def settings(workspace: Workspace) -> str:
    """Check that params.yaml is complete and consistent."""
    from flows.project.params import read_params

    params = read_params(workspace.params)
    return f"{workspace.params} is valid: model {params.name!r}, task {params.task}"


def data(workspace: Workspace) -> str:
    """Check that the data source can be read."""
    from components.data.snapshot.take import describe_source
    from flows.project.params import read_params

    return describe_source(workspace.origin, snapshot=read_params(workspace.params).snapshot)


def base_model(workspace: Workspace) -> str:
    """Check that the base model is available and can be loaded."""
    from components.data.base_model import pin_base
    from flows.project.params import read_params
    from flows.project.stores import find_registered

    base = read_params(workspace.params).base
    with temporary() as folder:
        manifest = pin_base(workspace.origin, folder / "base", base=base, registered=partial(find_registered, workspace))
    return f"{base.model}, {sum(part.bytes for part in manifest.parts) / 2**20:.0f} MiB in {len(manifest.parts)} files"


def disk(workspace: Workspace) -> str:
    """Check that there is disk space for models and checkpoints."""
    free = shutil.disk_usage(workspace.project).free / 2**30
    if free < FREE_GIB:
        raise RetuneError(f"{free:.1f} GiB free, expected {FREE_GIB}: `dvc gc --workspace` removes unused cached outputs")
    return f"{free:.0f} GiB free"


def memory(_workspace: Workspace) -> str:
    """Check that there is memory for a training."""
    free = psutil.virtual_memory().available / 2**30
    if free < MEMORY_GIB:
        raise RetuneError(f"{free:.1f} GiB of memory free, expected {MEMORY_GIB}: lower train.batch_size or preprocess.max_length")
    return f"{free:.0f} GiB free, {os.cpu_count()} cores"


def state(workspace: Workspace) -> str:
    """Check that var/ is writable."""
    make_private(workspace.var)
    with tempfile.TemporaryFile(dir=workspace.var):
        return f"{workspace.var} is writable"


def git(workspace: Workspace) -> str:
    """Check that the project is a git repository with a commit, so that a model can be traced to its code."""
    from flows.pipeline.lineage import commit_of
    from flows.project.git import NO_GIT
    from flows.project.git import git as run_git

    commit = commit_of(workspace)
    if commit == NO_GIT:
        return "none (DVC's core.no_scm): versions cannot be rebuilt"
    changed = len(run_git(workspace.project, "status", "--porcelain", "--", ".").splitlines())
    return f"commit {commit[:7]}, {changed} uncommitted file(s)"


def dvc(workspace: Workspace) -> str:
    """Check that DVC runs, has every stage, and has a remote that others can pull from."""
    from flows.dvc_adapter.config import cache_folder, default_remote
    from flows.dvc_adapter.repro import check_pipeline
    from flows.dvc_adapter.repro import dvc as run

    check_pipeline(workspace.project)
    run(["remote", "list"], workspace.project, what="dvc remote list", level=0)
    version, cache = importlib.metadata.version("dvc"), f"cache {cache_folder(workspace.project)}"
    shared = read_settings(workspace.project).dvc_remote
    remote = ("shared (RETUNE_DVC_REMOTE)", shared) if shared else default_remote(workspace.project)
    if remote is None:
        return f"{version}, {cache}, no default remote: `dvc remote add --default NAME URL`"
    name, url = remote
    here = " (in this folder: other clones cannot pull from it)" if "://" not in url and Path(url).is_relative_to(workspace.project) else ""
    return f"{version}, {cache}, remote {name}: {url}{here}"


def dvc_lock(workspace: Workspace) -> str:
    """Check that no lock of another process blocks DVC."""
    path = workspace.root / ".dvc/tmp/rwlock"
    if not path.exists():
        return "free"
    try:
        locks = read_yaml(path) or {}
    except BadParams:
        raise RetuneError(f"{path} is corrupt and blocks every `dvc repro`: delete it when no DVC command is running") from None
    holders = [info for paths in locks.values() for entry in paths.values() for info in (entry if isinstance(entry, list) else [entry])]
    alive = [info for info in holders if is_alive(int(info["pid"]))]
    if alive:
        names = ", ".join(f"process {info['pid']} ({info.get('cmd', '?')})" for info in alive)
        raise RetuneError(f"{path} is held by {names}: wait if that is a DVC command; if it is another program, delete the file")
    return "free"


def mlflow(workspace: Workspace) -> str:
    """Check that MLflow's store exists and has the current schema."""
    from components.mlflow_store.connection import check_server
    from flows.project.stores import store

    uri = store(workspace)
    check_server(uri)
    return f"{importlib.metadata.version('mlflow')}, {uri}"


def ledger(workspace: Workspace) -> str:
    """Check that the ledger is unchanged and is the one that MLflow knows."""
    from components.mlflow_store import registry
    from components.mlflow_store.connection import sqlite_path
    from components.mlflow_store.registry.ledger_head import join_faults
    from flows.audit.registered_model import open_models

    path = sqlite_path(workspace.ledger)
    if path is not None and not path.exists() and not (workspace.var / "mlflow.db").exists():
        return "does not exist yet; `retune run` creates it"
    models = open_models(workspace.project)
    checks = {model.name: registry.verify_ledger(model.uri, model.ledger_url, model.name) for model in models if model.ledger}
    if faults := list(dict.fromkeys(fault for check in checks.values() for fault in check.faults)):
        raise RetuneError(
            f"{join_faults(faults)}: `retune history NAME --verify` shows all; restore a copy, or `retune reconcile --accept --why …`"
        )
    if not checks:
        return f"{path or 'it'} has no entry yet"
    entries = max(len(check.chain.links) for check in checks.values())
    return f"{entries:,} entries, unchanged since they were written, {', '.join(sorted({check.signature for check in checks.values()}))}"


def champions(workspace: Workspace) -> str:
    """Check that all current and past champions are registered and no workspace file is damaged; `retune verify` checks all contents."""
    from flows.audit.registered_model import open_models
    from flows.audit.verify import verify_model

    try:
        models = open_models(workspace.project)
    except NotFound:
        return "none yet"
    checks = [verify_model(model, quick=True) for model in models]
    if faults := [f"{check.model} {fault.version or ''}: {fault.message}" for check in checks for fault in check.faults]:
        raise RetuneError(f"{'; '.join(faults)}. `retune verify` shows details")
    notes = [note for check in checks for note in check.notes]
    return "; ".join([f"the files of {sum(len(check.versions) for check in checks)} version(s) exist", *notes])


def prefect(workspace: Workspace) -> str:
    """Check that a configured or running Prefect server answers; a run starts one otherwise."""
    from flows.orchestrator.server import reach, running

    configured = read_settings(workspace.project).prefect_api_url
    if configured:
        reach(configured)
        refuse_orphans(configured, managed=False)
        return f"{configured} answers"
    url = running(workspace.var / "prefect")
    if url:
        refuse_orphans(url, managed=True)
    return f"{url} answers" if url else "no server running; `retune run` starts one"


def refuse_orphans(api: str, managed: bool) -> None:
    """Fail if Prefect counts runs as running whose process is gone."""
    from flows.orchestrator import orphaned_runs

    if orphans := orphaned_runs.find(api, managed):
        names = ", ".join(sorted(run["name"] for run in orphans)[:5])
        raise RetuneError(
            f"Prefect shows {len(orphans)} run(s) as running whose process is gone ({names}): the next `retune run` sets them to Crashed"
        )
