"""Where a model is made: the folder in which DVC runs, and the project that holds code, cache and registry.

The project's own params.yaml is made in the project itself. Any other parameter file gets a workspace of its own below
`var/workspaces/`: a copy of the code and of dvc.yaml, that file as params.yaml, a `.dvc` that inherits the project's cache and
remotes. Every DVC command works in it as it does in the project. A scheduled run works in a checkout of its own, which is gone afterwards.
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

UNFIT = "?:{}\n\r"  # to SQLite's addresses, to PATH, to DVC, which takes braces in a path for its own, and to what reads lines
MODELS = "models"  # the folder of a project that has one folder a model
KEPT = {"raw.dvc": "data/raw.dvc", "base.dvc": "data/base.dvc", "dvc.lock": "dvc.lock"}  # in a model's folder: in its workspace


@dataclass(frozen=True)
class Workspace:
    """The folders of one model. `root` is DVC's working folder, `origin` the folder that data paths are relative to.

    `commit` is what `root` is a checkout of, where it is one: then its code is there, and clean.
    """

    project: Path
    root: Path
    params: Path
    home: Path | None = None
    commit: str = ""

    @property
    def origin(self) -> Path:
        """The folder of the parameter file, as it lies in the project."""
        return self.home or self.params.parent

    @property
    def kept(self) -> dict[Path, Path]:
        """Where the project keeps what DVC knows of the model, and where DVC reads it in the workspace; nothing where these are one.

        A model's folder, models/NAME, keeps it beside the settings; the project's own model keeps it where DVC reads it.
        """
        if self.root == self.project:
            return {}
        if self.origin == self.project:
            return {self.project / place: self.root / place for place in KEPT.values()}
        if self.origin.parent == self.project / MODELS:
            return {self.origin / name: self.root / place for name, place in KEPT.items()}
        return {}

    @property
    def var(self) -> Path:
        """The one home of embedded state, shared by all workspaces of a project."""
        return self.project / "var"

    @property
    def ledger(self) -> str:
        """The address of the ledger: who was champion, and who asked for it."""
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
        """The fine-tuned model, as it is packaged."""
        return self.root / "models/trained/model"

    @property
    def history(self) -> Path:
        """The training history, a line an event, which grows while the model trains."""
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
    """Find the project above `start` (the working folder) and return the workspace for `params` (the project's own).

    Raises:
        NotThere: no project here.
        BadParams: the parameter file does not exist.
    """
    project = find_project((start or Path.cwd()).resolve())
    load_into_environment(project)
    own = project / "params.yaml"
    chosen = own if params is None else params.resolve()
    if not chosen.is_file():
        raise BadParams(f"{chosen} is missing; `retune init DATA` writes a params.yaml")
    if chosen == own:
        return Workspace(project, project, own)
    root = project / "var/workspaces" / f"{chosen.parent.name}-{digest_value(str(chosen))[:8]}"
    return Workspace(project, root, chosen)


def find_project(start: Path) -> Path:
    """Return the nearest folder at or above `start` that holds dvc.yaml and components/.

    Raises:
        NotThere: there is none.
        BadInput: its path has a character that no address can hold.
    """
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "components").is_dir() and (folder / "flows").is_dir():
            if bad := [repr(character) for character in UNFIT if character in str(folder)]:
                raise BadInput(
                    f"{str(folder)!r}: {', '.join(bad)} cannot be used in the path of a project: SQLite's addresses, PATH or DVC would "
                    "take it for something else; rename the folder"
                )
            return folder
    raise NotFound(f"no Retune project at or above {start}: expected a folder with dvc.yaml, components/ and flows/; run from a clone")


def sync_workspace(workspace: Workspace) -> None:
    """Bring a workspace up to date with the project's code and its parameter file; leave its data and lock alone.

    Only who holds the workspace may call this: a stage that is running must not see other code or settings.
    """
    settings = read_settings(workspace.project)
    share_remote(workspace.project / ".dvc/config.local", settings)
    if workspace.root == workspace.project:
        return
    make_private(workspace.root)
    copy_if_changed(workspace.params, workspace.root / "params.yaml")
    if not workspace.commit:
        copy_code(workspace.project, workspace.root)
    for kept, place in workspace.kept.items():
        if kept.is_file():
            copy_if_changed(kept, place)
        elif workspace.commit:  # what the checkout has there is another model's
            place.unlink(missing_ok=True)
    inherit(workspace.project, workspace.root)
    if (left := workspace.root / ".dvc/config.local").exists():  # by an earlier release, which knew no other way
        share_remote(left, settings.model_copy(update={"dvc_remote": ""}), ours=True)


def copy_code(project: Path, root: Path) -> None:
    """Make dvc.yaml, .dvcignore and components/ in `root` what they are in the project."""
    for path in (project / "dvc.yaml", project / ".dvcignore"):
        if path.is_file():
            copy_if_changed(path, root / path.name)
    sources = {path.relative_to(project) for path in (project / "components").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    for relative in sources:
        copy_if_changed(project / relative, root / relative)
    for path in list((root / "components").rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and path.relative_to(root) not in sources:
            path.unlink()


def copy_lock_files_back(workspace: Workspace) -> None:
    """Keep what DVC knows of the model in the project, file by file by rename: it is what a person commits."""
    for kept, place in workspace.kept.items():
        if place.is_file() and not (kept.is_file() and kept.read_bytes() == place.read_bytes()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, place.read_bytes())


def copy_if_changed(source: Path, target: Path) -> None:
    """Copy a file unless the target holds the same bytes, so that its time stamp stays and DVC need not hash it again."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
