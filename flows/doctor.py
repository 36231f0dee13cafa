"""`retune doctor`: each thing that a run needs, a line each, ok or what to do."""

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
from components.core.temporary import temporary
from flows.project.workspace import Workspace
from flows.settings import read_settings

FREE_GIB = 5
MEMORY_GIB = 4


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    says: str


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Yield a finding a thing; a check that raises is a finding that is not ok."""
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
        except Exception as error:  # whatever breaks here is what the doctor was asked to find
            yield Finding(name, False, f"{type(error).__name__}: {error}")


def python(_workspace: Workspace) -> str:
    """The interpreter of the stages is this one."""
    return f"{sys.version.split()[0]}, {sys.executable}"


def packages(_workspace: Workspace) -> str:
    """What pyproject.toml asks for is installed, in a version that it accepts."""
    wanted = [Requirement(line) for line in importlib.metadata.requires("retune") or [] if "extra ==" not in line]
    wrong = []
    for requirement in wanted:
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, expected {requirement.specifier}")
    if wrong:
        raise RetuneError(f"{'; '.join(wrong)}: run `make setup`")
    return f"{len(wanted)} as pyproject.toml asks, torch {importlib.metadata.version('torch')}"


def settings(workspace: Workspace) -> str:
    """params.yaml is complete and agrees with itself."""
    from flows.project.params import read_params

    params = read_params(workspace.params)
    return f"{workspace.params} is valid: model {params.name!r}, task {params.task}"


def data(workspace: Workspace) -> str:
    """The source is there."""
    from components.data.snapshot import describe_source
    from flows.project.params import read_params

    return describe_source(workspace.origin, snapshot=read_params(workspace.params).snapshot)


def base_model(workspace: Workspace) -> str:
    """The base model can be had, and is one that we load."""
    from components.data.base_model import pin_base
    from flows.pipeline.actions import find_registered
    from flows.project.params import read_params

    base = read_params(workspace.params).base
    with temporary() as folder:
        registered = partial(find_registered, workspace)
        manifest = pin_base(workspace.origin, folder / "base", base=base, registered=registered)
    return f"{base.model}, {sum(part.bytes for part in manifest.parts) / 2**20:.0f} MiB in {len(manifest.parts)} files"


def disk(workspace: Workspace) -> str:
    """There is room for models and checkpoints."""
    free = shutil.disk_usage(workspace.project).free / 2**30
    if free < FREE_GIB:
        raise RetuneError(f"{free:.1f} GiB free, expected {FREE_GIB}: `dvc gc --workspace` drops cached outputs that nothing refers to")
    return f"{free:.0f} GiB free"


def memory(_workspace: Workspace) -> str:
    """There is memory for a training."""
    free = psutil.virtual_memory().available / 2**30
    if free < MEMORY_GIB:
        raise RetuneError(f"{free:.1f} GiB of memory free, expected {MEMORY_GIB}: lower train.batch_size or preprocess.max_length")
    return f"{free:.0f} GiB free, {os.cpu_count()} cores"


def state(workspace: Workspace) -> str:
    """var/ can be written."""
    make_private(workspace.var)
    with tempfile.TemporaryFile(dir=workspace.var):
        return f"{workspace.var} is writable"


def git(workspace: Workspace) -> str:
    """The project is a git repository with a commit, so that a model can be traced to its code."""
    from flows.pipeline.lineage import commit_of
    from flows.project.git import NO_GIT
    from flows.project.git import git as ask

    commit = commit_of(workspace)
    if commit == NO_GIT:
        return "none, as DVC's core.no_scm says: no version can be made again"
    changed = len(ask(workspace.project, "status", "--porcelain", "--", ".").splitlines())
    return f"commit {commit[:7]}, {changed} uncommitted file(s)"


def dvc(workspace: Workspace) -> str:
    """DVC runs here, has every stage, and has a remote that others can pull from."""
    from flows.dvc_adapter.config import cache_folder, default_remote
    from flows.dvc_adapter.repro import check_pipeline
    from flows.dvc_adapter.repro import dvc as run

    check_pipeline(workspace.project)
    run(["remote", "list"], workspace.project, what="dvc remote list", level=0)
    version, cache = importlib.metadata.version("dvc"), f"cache {cache_folder(workspace.project)}"
    shared = read_settings(workspace.project).dvc_remote
    remote = ("shared, as RETUNE_DVC_REMOTE says", shared) if shared else default_remote(workspace.project)
    if remote is None:
        return f"{version}, {cache}, no default remote: `dvc remote add --default NAME URL`"
    name, url = remote
    here = " (in this folder: nobody else can pull from it)" if "://" not in url and Path(url).is_relative_to(workspace.project) else ""
    return f"{version}, {cache}, remote {name}: {url}{here}"


def dvc_lock(workspace: Workspace) -> str:
    """No lock of a process that is gone, or of a living stranger, blocks DVC."""
    path = workspace.root / ".dvc/tmp/rwlock"
    if not path.exists():
        return "free"
    try:
        held = read_yaml(path) or {}
    except BadParams:
        raise RetuneError(f"{path} is broken and blocks every `dvc repro`: delete it when no DVC command is running") from None
    holders = [info for kinds in held.values() for entry in kinds.values() for info in (entry if isinstance(entry, list) else [entry])]
    alive = [info for info in holders if psutil.pid_exists(int(info["pid"]))]
    if alive:
        names = ", ".join(f"process {info['pid']} ({info.get('cmd', '?')})" for info in alive)
        raise RetuneError(f"{path} names {names}: wait if that is a DVC command; if it is another program, delete the file")
    return "free"


def mlflow(workspace: Workspace) -> str:
    """MLflow's store is there and at today's schema."""
    from components.mlflow_store.connection import check_server
    from flows.project.stores import store

    uri = store(workspace)
    check_server(uri)
    return f"{importlib.metadata.version('mlflow')}, {uri}"


def ledger(workspace: Workspace) -> str:
    """The ledger is what was written, and the one that MLflow knows."""
    from components.mlflow_store import registry
    from components.mlflow_store.connection import sqlite_path
    from components.mlflow_store.registry.ledger_head import join_faults
    from flows.audit.registered_model import open_models

    path = sqlite_path(workspace.ledger)
    if path is not None and not path.exists() and not (workspace.var / "mlflow.db").exists():
        return "not made yet; `retune run` makes it"
    models = open_models(workspace.project)
    found = {model.name: registry.verify_ledger(model.uri, model.ledger_url, model.name) for model in models if model.ledger}
    if faults := list(dict.fromkeys(fault for one in found.values() for fault in one.faults)):
        raise RetuneError(
            f"{join_faults(faults)}: `retune history NAME --verify` shows all; restore a copy, or `retune reconcile --accept --why …`"
        )
    if not found:
        return f"{path or 'it'} has no entry yet"
    entries = max(len(one.chain.links) for one in found.values())
    return f"{entries:,} entries, unchanged since they were written, {', '.join(sorted({one.signature for one in found.values()}))}"


def champions(workspace: Workspace) -> str:
    """What was ever champion is registered, and no file of a workspace is damaged; `retune verify` reads all of it."""
    from flows.audit.registered_model import open_models
    from flows.audit.verify import verify_model

    try:
        models = open_models(workspace.project)
    except NotFound:
        return "none yet"
    found = [verify_model(model, quick=True) for model in models]
    if faults := [f"{one.model} {fault.version or ''}: {fault.says}" for one in found for fault in one.faults]:
        raise RetuneError(f"{'; '.join(faults)}. `retune verify` says more")
    notes = [note for one in found for note in one.notes]
    return "; ".join([f"{sum(len(one.versions) for one in found)} version(s) lead to their files", *notes])


def prefect(workspace: Workspace) -> str:
    """The Prefect server answers, if one is running; a run starts it otherwise."""
    from flows.orchestrator.server import running

    configured = read_settings(workspace.project).prefect_api_url
    if configured:
        import httpx

        from flows.orchestrator.prefect_api import auth

        try:
            httpx.get(f"{configured}/version", timeout=5, auth=auth(configured)).raise_for_status()
        except httpx.HTTPError as error:
            raise RetuneError(f"RETUNE_PREFECT_API_URL={configured} does not answer ({error}); unset it to use the local server") from None
        refuse_orphans(configured, managed=False)
        return f"{configured} answers"
    url = running(workspace.var / "prefect")
    if url:
        refuse_orphans(url, managed=True)
    return f"{url} answers" if url else "no server running; `retune run` starts one"


def refuse_orphans(api: str, managed: bool) -> None:
    """Name the runs that Prefect counts as running though their process is gone.

    Raises:
        RetuneError: there are some.
    """
    from flows.orchestrator import orphaned_runs

    if found := orphaned_runs.find(api, managed):
        names = ", ".join(sorted(run["name"] for run in found)[:5])
        raise RetuneError(
            f"{len(found)} run(s) count as running and their process is gone ({names}): the next `retune run` sets them to Crashed"
        )
