"""The models of a project: its own params.yaml, and a folder a model below `models/`; adding one is adding a folder."""

from dataclasses import dataclass
from pathlib import Path

from components.core.documents import read_yaml
from components.core.errors import BadParams
from components.core.section import nearest
from flows.project.workspace import MODELS, Workspace, find_project, open_workspace

OUTPUTS = ("tuned", "trained")  # what the project's own stages write into models/


@dataclass(frozen=True)
class ModelFolder:
    """A model by its name in the registry, and its parameter file."""

    name: str
    params: Path


def find_models(project: Path) -> list[ModelFolder]:
    """Return every model of the project, its own first, then by folder.

    Raises:
        BadParams: a folder has no params.yaml, one cannot be read or names no model, or two name the same; with every fault.
    """
    found, faults = survey_models(project)
    for model in found:
        if (twin := next(one for one in found if one.name == model.name)) is not model:
            faults.append(f"{model.params} and {twin.params} both name the model {model.name!r}: give one of them another name")
    if faults:
        raise BadParams("\n".join(faults))
    return found


def survey_models(project: Path) -> tuple[list[ModelFolder], list[str]]:
    """Return the models of the project that have a name, its own first, then by folder; and what is wrong with the other folders."""
    folders = sorted(path for path in (project / MODELS).glob("*") if path.is_dir() and path.name not in OUTPUTS and path.name[0] != ".")
    files = [*([project / "params.yaml"] if (project / "params.yaml").is_file() else []), *(path / "params.yaml" for path in folders)]
    found, faults = [], []
    for file in files:
        try:
            found.append(ModelFolder(_name(file), file))
        except BadParams as fault:
            faults.append(str(fault))
    return found, faults


def find_model(project: Path, name: str) -> ModelFolder:
    """Return the model that is called `name` in the registry, else the one whose folder is; what is wrong with other folders is theirs.

    Raises:
        BadParams: there is none, or two.
    """
    known, faults = survey_models(project)
    named = [model for model in known if model.name == name]
    if len(named) > 1:
        raise BadParams(f"{' and '.join(str(one.params) for one in named)} both name the model {name!r}: give one of them another name")
    if chosen := named or [model for model in known if model.params.parent == project / MODELS / name]:
        return chosen[0]
    close = nearest(name, [model.name for model in known])
    raise BadParams("\n".join([f"no model {name!r} in {project}{close}; a model is a folder of {MODELS}/", *faults]))


def open_model(name: str | None, params: Path | None) -> Workspace:
    """Return the workspace of the model `name`, else of the parameter file, else the project's own.

    Raises:
        BadParams: both are given, or there is no such model or file.
    """
    if name is None:
        return open_workspace(params)
    if params is not None:
        raise BadParams("--model and --params both say which model is meant: give one of them")
    return open_workspace(find_model(find_project(Path.cwd().resolve()), name).params)


def _name(file: Path) -> str:
    if not file.is_file():
        raise BadParams(f"{file.parent} has no params.yaml: `retune init DATA --params {file}` writes one")
    raw = read_yaml(file)
    name = raw.get("name") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        hint = "" if name is None else f", found {name!r}, which is no text: put it in quotes"
        raise BadParams(f"{file}: expected `name:`, the registered model's name{hint}")
    return name
