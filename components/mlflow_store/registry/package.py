"""The package of a version: the model folder or the adapter, the code that answers with it, and ten questions with their answers.

There is no pickle in it.

Writes a package into a folder; checks one before anything of it is run.
"""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map

import components
from components.artifacts.adapter_manifest import AdapterManifest
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec
from components.core.documents import read_yaml
from components.core.errors import BadModel, BadParams, NotFound
from components.core.hashing import digest_file, digest_folder, digest_value
from components.core.temporary import temporary
from components.model import tasks
from components.model.support.pretrained import PIECES

with warnings.catch_warnings():  # MLflow warns of the type hints of its own classes when it is imported
    warnings.filterwarnings("ignore", message=".*AnyType", category=UserWarning)
    from mlflow.pyfunc import save_model

CODE = Path(components.__file__).parent
SHIPPED = ("__init__.py", "core", "artifacts", "model")
"""What a package carries of `components`: the model's code and all that it imports (checked by import-linter)."""
LOADER = "mlflow.pyfunc.loaders.code_model"  # MLflow's own, which runs serving.py; any other name would be code of the package's choice
PIPELINE_CODE = "pipeline_code"
"""The artifact with all of `components`, in the package of a version that was made from uncommitted code."""
MODEL, ADAPTER = "model", "adapter"
"""The folder of a whole model, and that of what was learnt from a base: what a package has below `artifacts`, one of the two."""
NEEDED = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "tokenizers", "torch", "transformers")
NEEDED_TO_MERGE = ("peft",)
QUESTIONS = 10
_LABELS = b"retune.labels"
_NOT_OURS = ("registered_model_meta",)  # MLflow writes it into a package when it is loaded
_PICKLES = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".cloudpickle", ".dill", ".npy"}


def signature(task: tasks.Task) -> ModelSignature:
    """Return what a model of the task is asked with and answers."""
    classes = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability"), ColSpec(Map(DataType.double), "probabilities")]
    answers = [ColSpec(DataType.string, "answer"), *([ColSpec(Map(DataType.double), "probabilities")] * task.scored)]
    outputs = classes if task.classes else answers
    return ModelSignature(inputs=Schema([*(ColSpec(DataType.string, name) for name in task.inputs)]), outputs=Schema([*outputs]))


def requirements(model: Path) -> list[str]:
    """Return what serving `model` needs, pinned to what is installed; a local build tag (torch's +cpu) is no release of an index.

    An adapter is put into its base, and a tokenizer in sentencepiece's own files needs that to be read.
    """
    more = (*(NEEDED_TO_MERGE if model.name == ADAPTER else ()), *(PIECES if any(model.glob("*.spm")) else ()))
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted((*NEEDED, *more))]


def stored_folder(trained: Path) -> Path:
    """Return what is stored of models/trained: the adapter where there is one, else the model."""
    return trained / ADAPTER if (trained / ADAPTER).is_dir() else trained / MODEL


def spec_folder(folder: Path) -> Path:
    """Return the folder of a package that says how the version is asked: retune.json and the tokenizer."""
    return stored_folder(folder / "artifacts")


def base_bytes(folder: Path) -> int:
    """Return the bytes of the base without which a package cannot be loaded; 0 where it is whole."""
    place = spec_folder(folder)
    return sum(part.bytes for part in AdapterManifest.read(place).base) if place.name == ADAPTER else 0


def build(folder: Path, model: Path, extras: Mapping[str, Path], ids: Mapping[str, str], code: Path = CODE) -> None:
    """Write the package into `folder`: the folder `model`, called so or `adapter`, the `extras` by name, and the `SHIPPED` parts of `code`.

    `ids` are MLflow's names of this package: artifact_path, run_id, model_id.
    """
    task = tasks.of(ModelSpec.read(model))
    with temporary() as aside:
        shipped = copy_code(code, aside, SHIPPED)
        save_model(
            path=str(folder),
            python_model=str(shipped / "model/serving.py"),
            code_paths=[str(shipped)],
            # By address: of a path, MLflow decodes what looks like %25 in it.
            artifacts={name: path.absolute().as_uri() for name, path in {model.name: model, **extras}.items()},
            signature=signature(task),
            input_example={name: [text] for name, text in task.example.items()},
            pip_requirements=requirements(model),
            mlflow_model=Model(
                artifact_path=ids["artifact_path"], run_id=ids["run_id"], model_uuid=ids["model_id"], model_id=ids["model_id"]
            ),
        )


def copy_code(code: Path, folder: Path, parts: Sequence[str] = ()) -> Path:
    """Copy `code`, or only its `parts`, to `components` in `folder`, without compiled files; return the copy."""
    copy = folder / "components"
    for part in [code / name for name in parts] or [code]:
        target = copy / part.relative_to(code)
        if part.is_dir():
            shutil.copytree(part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
    return copy


def fingerprint(folder: Path) -> str:
    """Return a digest of every file of a package, but for what loading it leaves behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _NOT_OURS and "__pycache__" not in path.parts)
    return digest_value([(path.relative_to(folder).as_posix(), digest_file(path)) for path in files])


def check_files(folder: Path, weights: str, whole: str, adapter: str | None = None) -> None:
    """Check a package before anything of it is run, against the digests that its version was tagged with.

    `whole` is that of the package, `weights` that of the model folder, and `adapter`, where one is stored instead, that of its folder.

    Raises:
        BadModel: with every fault found.
    """
    faults = [*_manifest_faults(folder), *_pickles(folder), *_compiled(folder)]
    name, digest = (MODEL, weights) if adapter is None else (ADAPTER, adapter)
    place = folder / "artifacts" / name
    if not place.is_dir() or digest_folder(place) != digest:
        faults.append(f"artifacts/{name} is not the {name} that was registered (its hash differs)")
    elif fingerprint(folder) != whole:
        faults.append("its files are not those that were registered (the hash of the package differs)")
    if faults:
        raise BadModel(f"{folder} is not loaded: {'; '.join(faults)}")


def _manifest_faults(folder: Path) -> list[str]:
    if not (folder / "MLmodel").is_file():
        return ["it has no MLmodel file"]
    try:
        flavors = read_yaml(folder / "MLmodel")["flavors"]
        conf = dict(flavors["python_function"])
    except BadParams as error:
        return [str(error)]
    except (KeyError, TypeError, ValueError):
        return ["its MLmodel file has no python_function flavor"]
    wanted = {"loader_module": LOADER, "code": "code"}
    faults = [f"MLmodel: {name} is {conf.get(name)!r}, expected {value!r}" for name, value in wanted.items() if conf.get(name) != value]
    if Path(str(conf.get("model_code_path"))).name != "serving.py":
        faults.append(f"MLmodel: model_code_path is {conf.get('model_code_path')!r}, expected serving.py")
    if "python_model" in conf:
        faults.append("MLmodel names a pickled python_model")
    if set(flavors) != {"python_function"}:
        faults.append(f"MLmodel has the flavors {', '.join(sorted(map(str, flavors)))}, expected python_function alone")
    return faults


def _pickles(folder: Path) -> list[str]:
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _PICKLES)
    return [f"it holds files that may be pickles: {', '.join(found)}"] if found else []


def _compiled(folder: Path) -> list[str]:
    """Remove compiled files, which Python would believe in place of the sources that were checked."""
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pyc"))
    return [f"it holds compiled code that cannot be removed: {', '.join(left)}"] if left else []


def write_questions(workspace: Path, path: Path) -> Path:
    """Write ten test rows with the evaluated answers: spread over the predicted labels, the same ten every time."""
    answered = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet")
    inputs = list(tasks.of(ModelSpec.read(workspace / "models/trained/model")).inputs)
    asked = rows.set_index("id")[inputs]
    chosen = [int(place * len(answered.ids) / QUESTIONS) for place in range(min(QUESTIONS, len(answered.ids)))]
    if lost := [str(answered.ids[place]) for place in chosen if answered.ids[place] not in asked.index]:
        raise NotFound(f"{workspace}: predictions and test rows are not of one run ({lost[0]} is in one only); `dvc repro` mends that")
    table = pa.table(
        {
            **{name: pa.array([asked.at[str(answered.ids[place]), name] for place in chosen], pa.string()) for name in inputs},
            "predicted": pa.array([str(answered.predicted[place]) for place in chosen], pa.string()),
            "probabilities": pa.array([answered.probabilities[place].tolist() for place in chosen], pa.list_(pa.float64())),
        }
    )
    pq.write_table(table.replace_schema_metadata({_LABELS: json.dumps(answered.labels).encode()}), path)
    return path
