"""The parameter file of `retune auto`: an existing one of the same data, or a new one."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from components.core.atomic import replacing
from components.core.documents import read_yaml
from components.core.errors import BadParams
from flows.project.guessing import NOTHING_WANTED, Guess, Wanted
from flows.project.init_params import number_text, slug, write_params
from flows.project.models import OUTPUTS, survey_models
from flows.project.params import read_params
from flows.project.run_locks import folder_lock
from flows.project.workspace import MODELS, workspace_of

_MINUTES_LINE = re.compile(r"^( +minutes: *)[0-9][0-9.eE+]*", re.MULTILINE)


def params_for(
    data: Path,
    params: Path | None,
    project: Path,
    *,
    name: str | None,
    minutes: float | None,
    force: bool,
    wanted: Wanted = NOTHING_WANTED,
    ask: Callable[[Guess], str] | None = None,
) -> tuple[Path, Guess | None]:
    """Return the parameter file for a data file, and the guess if it was written now.

    Without `params` it is the project's params.yaml, or that of a model folder if the project's own model has other data. An existing
    file of the same data is kept; only its number of minutes is replaced. The lock of the workspace is held meanwhile: the stages of a
    run read the settings of its file.

    Raises:
        BadSource: the file cannot be read, or no column looks like a text or a label.
        BadParams: the parameter file has other data, another name or another strategy, or columns are chosen, and `force` is not set; or a
            new file would have the name of another model.
        Unavailable: a run uses the parameter file.
    """
    file = params or _default_file(data, project, name)
    if force or not file.exists():
        check_name(file, name or slug(data.stem), project)
    with folder_lock(workspace_of(project, file).root):
        if force or not file.exists():
            return file, write_params(data, file, name=name, force=True, strategy="auto", minutes=minutes, wanted=wanted, ask=ask)
        if wanted != NOTHING_WANTED:
            raise BadParams(f"{file} has the columns and the task already: edit it, or --force replaces it with those that you choose")
        _keep(data, file, name, minutes)
        return file, None


def new_model_file(data: Path, project: Path, name: str | None) -> Path:
    """Return the parameter file of a new model in `project`."""
    return project / MODELS / slug(name or data.stem) / "params.yaml"


def _keep(data: Path, file: Path, name: str | None, minutes: float | None) -> None:
    """Check that the parameter file is for this data, and replace its minutes."""
    if not _has_source(file, data):
        raise BadParams(f"{file} has another snapshot.source than {data}; --force replaces it, --params FILE uses another file")
    settings = read_params(file)
    if name not in (None, settings.name):
        raise BadParams(f"{file} names the model {settings.name!r}, found --name {name!r}; edit the file, or --force replaces it")
    if settings.tune.strategy != "auto":
        raise BadParams(f"{file}: tune.strategy is {settings.tune.strategy}: `retune run` uses it; set it to auto, or --force replaces it")
    if minutes is not None and minutes != settings.tune.minutes:
        _replace_minutes(file, minutes)


def check_name(file: Path, name: str, project: Path) -> None:
    """Check that a new parameter file is no stage's output and gets a name of its own; raise BadParams."""
    if file.resolve().parent in [project / MODELS / output for output in OUTPUTS]:
        raise BadParams(f"{file}: the stages replace {file.parent}, so it cannot contain a model's settings; choose another --name")
    for model in survey_models(project)[0]:
        if model.name == name and model.params.resolve() != file.resolve():
            raise BadParams(
                f"{model.params} already names the model {name!r}: for newer rows of this model, set its snapshot.source; for another "
                "model, choose another --name"
            )


def _default_file(data: Path, project: Path, name: str | None) -> Path:
    own = project / "params.yaml"
    return own if not own.exists() or _has_source(own, data) else new_model_file(data, project, name)


def _has_source(file: Path, data: Path) -> bool:
    """Return whether `file` trains on `data`."""
    with suppress(BadParams, KeyError, TypeError):
        source = str(read_yaml(file)["snapshot"]["source"])
        return "://" not in source and (file.resolve().parent / source).resolve() == data.resolve()
    return False


def _replace_minutes(file: Path, minutes: float) -> None:
    """Change tune.minutes in the text of a parameter file, and keep its comments."""
    text = _MINUTES_LINE.sub(rf"\g<1>{number_text(minutes)}", file.read_text(encoding="utf-8"), count=1)
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")
        if read_params(partial).tune.minutes != minutes:
            raise BadParams(f"{file}: tune.minutes is not on a line of its own: set it to {number_text(minutes)}")
