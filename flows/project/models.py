"""The models of a project: its params.yaml, and one folder per model in `models/`."""

from dataclasses import dataclass
from pathlib import Path

from components.core.documents import read_yaml
from components.core.errors import BadParams
from components.core.section import nearest
from flows.project.workspace import MODELS, Workspace, find_project, open_workspace

OUTPUTS = ("tuned", "trained")  # written to models/ by the stages of the project's own model


@dataclass(frozen=True)
class ModelFolder:
    """A model: its registered name and its parameter file."""

    name: str
    params: Path


def find_models(project: Path) -> list[ModelFolder]:
    """Return every model, the project's own first, then by folder; raise BadParams with all faults, e.g. two equal names."""
    models, faults = survey_models(project)
    for model in models:
        if (twin := next(other for other in models if other.name == model.name)) is not model:
            faults.append(_same_name(model, twin))
    if faults:
        raise BadParams("\n".join(faults))
    return models


def survey_models(project: Path) -> tuple[list[ModelFolder], list[str]]:
    """Return the valid models of the project, its own first, then by folder, and the faults of the other folders."""
    folders = sorted(path for path in (project / MODELS).glob("*") if path.is_dir() and path.name not in OUTPUTS and path.name[0] != ".")
    files = [*([project / "params.yaml"] if (project / "params.yaml").is_file() else []), *(path / "params.yaml" for path in folders)]
    models, faults = [], []
    for file in files:
        try:
            models.append(ModelFolder(name_of(file), file))
        except BadParams as fault:
            faults.append(str(fault))
    return models, faults


def find_model(project: Path, name: str) -> ModelFolder:
    """Return the model with the registered name, else with the folder `name`; raise BadParams if none or several match."""
    models, faults = survey_models(project)
    named = [model for model in models if model.name == name]
    if len(named) > 1:
        raise BadParams(_same_name(*named))
    if chosen := named or [model for model in models if model.params.parent == project / MODELS / name]:
        return chosen[0]
    close = nearest(name, [model.name for model in models])
    raise BadParams("\n".join([f"no model {name!r} in {project}{close}; a model is a folder in {MODELS}/", *faults]))


def open_model(name: str | None, params: Path | None) -> Workspace:
    """Return the workspace of the model `name`, else of `params`, else the project's own; raise BadParams for both, or unknown ones."""
    if name is None:
        return open_workspace(params)
    if params is not None:
        raise BadParams("--model and --params both select a model: give one of them")
    return open_workspace(find_model(find_project(Path.cwd().resolve()), name).params)


def _same_name(*models: ModelFolder) -> str:
    return f"{' and '.join(str(model.params) for model in models)} both name the model {models[0].name!r}: give one of them another name"


def name_of(file: Path) -> str:
    """Return the registered name in a parameter file; raise BadParams if the file or the name is missing."""
    if not file.is_file():
        raise BadParams(f"{file.parent} has no params.yaml: `retune init DATA --params {file}` writes one")
    raw = read_yaml(file)
    name = raw.get("name") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        hint = "" if name is None else f", found {name!r}, which is not a string: put it in quotes"
        raise BadParams(f"{file}: expected `name:`, the registered model's name{hint}")
    return name
