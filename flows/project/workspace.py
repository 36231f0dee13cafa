"""Workspaces: the folder in which DVC builds a model, and the project with code, cache and registry.

The model of the project's params.yaml is built in the project itself. Any other parameter file gets a workspace below `var/workspaces/`:
a copy of the code and of dvc.yaml, that file as params.yaml, and a `.dvc` that inherits the project's cache and remotes. Every DVC command
works there as in the project. A scheduled run uses a temporary checkout.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from components.core.atomic import write_bytes
from components.core.errors import BadInput, BadParams, NotFound
from components.core.hashing import digest_value
from components.core.output_dir import make_private
from flows.dvc_adapter.config import inherit, share_remote
from flows.settings import load_into_environment, read_settings

UNFIT = "?:{}\n\r"  # characters that break SQLite URLs, PATH, DVC (braces) or line-based tools
MODELS = "models"  # has one folder per model
DVC_FILES = {"raw.dvc": "data/raw.dvc", "base.dvc": "data/base.dvc", "dvc.lock": "dvc.lock"}  # model folder: workspace


@dataclass(frozen=True)
class Workspace:
    """The folders of one model. `root` is DVC's working folder, `origin` the folder that data paths are relative to.

    `commit` is set if `root` is a checkout, which has the clean code of that commit.
    """

    project: Path
    root: Path
    params: Path
    home: Path | None = None
    commit: str = ""

    @property
    def origin(self) -> Path:
        """The folder of the parameter file in the project."""
        return self.home or self.params.parent

    @property
    def dvc_files(self) -> dict[Path, Path]:
        """Map the model's DVC files in the project to their paths in the workspace; empty if these are the same.

        A model in models/NAME has them next to its params.yaml, the project's own model at the paths that DVC reads.
        """
        if self.root != self.project and self.origin == self.project:
            return {self.project / path: self.root / path for path in DVC_FILES.values()}
        if self.origin.parent == self.project / MODELS:
            return {self.origin / name: self.root / path for name, path in DVC_FILES.items()}
        return {}

    @property
    def var(self) -> Path:
        """The folder of embedded state, shared by all workspaces of a project."""
        return self.project / "var"

    @property
    def ledger(self) -> str:
        """The URL of the ledger database."""
        return read_settings(self.project).database.get_secret_value() or f"sqlite:///{self.var / 'ledger.db'}"

    @property
    def raw(self) -> Path:
        """The snapshot of the data."""
        return self.root / "data/raw"

    @property
    def base(self) -> Path:
        """The pinned base model."""
        return self.root / "data/base"

    @property
    def model(self) -> Path:
        """The fine-tuned model that is packaged."""
        return self.root / "models/trained/model"

    @property
    def history(self) -> Path:
        """The training history, one line per event, written during training."""
        return self.root / "models/trained/history.jsonl"

    @property
    def predictions(self) -> Path:
        """The predictions of the candidate and its baselines on the test split."""
        return self.root / "reports/evaluation/predictions"

    @property
    def reports(self) -> Path:
        """Evaluation, verdict and the page."""
        return self.root / "reports"


def open_workspace(params: Path | None = None, start: Path | None = None) -> Workspace:
    """Return the workspace for `params` (default: the project's own) in the project at or above `start` (default: the working folder).

    Raises:
        NotFound: there is no project.
        BadParams: the parameter file does not exist.
    """
    project = (main := open_project(start)).project
    chosen = main.params if params is None else params.resolve()
    if not chosen.is_file():
        raise BadParams(f"{chosen} is missing; `retune init DATA` writes a params.yaml")
    return workspace_of(project, chosen)


def workspace_of(project: Path, params: Path) -> Workspace:
    """Return the workspace of a parameter file, which may not exist yet."""
    chosen = params.resolve()
    own = chosen == project / "params.yaml"
    folder = project if own else project / "var/workspaces" / f"{chosen.parent.name}-{digest_value(str(chosen))[:8]}"
    return Workspace(project, folder, chosen)


def open_project(start: Path | None = None) -> Workspace:
    """Return the project's main workspace, even without params.yaml: the registry outlives the settings."""
    project = find_project((start or Path.cwd()).resolve())
    load_into_environment(project)
    return Workspace(project, project, project / "params.yaml")


def find_project(start: Path) -> Path:
    """Return the nearest folder at or above `start` that contains dvc.yaml, components/ and flows/.

    Raises:
        NotFound: there is none.
        BadInput: its path contains an unsupported character.
    """
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "components").is_dir() and (folder / "flows").is_dir():
            if bad := [repr(character) for character in UNFIT if character in str(folder)]:
                raise BadInput(
                    f"{str(folder)!r}: the path of a project cannot contain {', '.join(bad)}, which SQLite URLs, PATH or DVC would "
                    "misread; rename the folder"
                )
            return folder
    raise NotFound(f"no Retune project at or above {start}: expected a folder with dvc.yaml, components/ and flows/; run from a clone")


def sync_workspace(workspace: Workspace) -> None:
    """Copy the project's code and the parameter file into a workspace; data and dvc.lock are kept.

    The caller must hold the lock of the workspace: a running stage must not see other code or settings.
    """
    settings, project, root = read_settings(workspace.project), workspace.project, workspace.root
    share_remote(project / ".dvc/config.local", settings)
    if root == project:
        return
    make_private(root)
    copy_if_changed(workspace.params, root / "params.yaml")
    if not workspace.commit:
        copy_code(project, root)
    for source, target in workspace.dvc_files.items():
        if source.is_file():
            copy_if_changed(source, target)
        elif workspace.commit:  # the file in the checkout belongs to another model
            target.unlink(missing_ok=True)
    inherit(project, root)
    if (config := root / ".dvc/config.local").exists():  # written by an earlier release
        share_remote(config, settings.model_copy(update={"dvc_remote": ""}), ours=True)


def copy_code(project: Path, root: Path) -> None:
    """Mirror dvc.yaml, .dvcignore and components/ of the project in `root`."""
    code = code_of(project)
    for relative in {*code, *(path for path in (Path("dvc.yaml"), Path(".dvcignore")) if (project / path).is_file())}:
        copy_if_changed(project / relative, root / relative)
    for relative in code_of(root) - code:
        (root / relative).unlink()


def code_of(root: Path) -> set[Path]:
    """Return the paths of the files in components/, relative to `root`."""
    return {path.relative_to(root) for path in (root / "components").rglob("*") if path.is_file() and path.suffix != ".pyc"}


def copy_lock_files_back(workspace: Workspace) -> None:
    """Copy the model's DVC files from the workspace to the project, where users commit them."""
    for target, source in workspace.dvc_files.items():
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, source.read_bytes())


def copy_if_changed(source: Path, target: Path) -> None:
    """Copy a file unless the target is equal, so that its timestamp is kept and DVC does not hash it again."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
