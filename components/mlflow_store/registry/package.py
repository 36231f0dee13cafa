"""The package of a version: model folder or adapter, the code that runs it, and ten questions with answers. It contains no pickle.

Writes a package into a folder; checks a package before any of its code runs.
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
from components.artifacts.manifest import AdapterManifest
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec
from components.core.documents import read_yaml
from components.core.errors import BadModel, BadParams, NotFound
from components.core.hashing import digest_file, digest_folder, digest_value
from components.core.temporary import temporary
from components.model import tasks
from components.model.support.pretrained import PIECES

with warnings.catch_warnings():  # MLflow's import warns about its own type hints
    warnings.filterwarnings("ignore", message=".*AnyType", category=UserWarning)
    from mlflow.pyfunc import save_model

CODE = Path(components.__file__).parent
SHIPPED = ("__init__.py", "core", "artifacts", "model")
"""The parts of `components` in a package: the model's code and its imports (checked by import-linter)."""
LOADER = "mlflow.pyfunc.loaders.code_model"  # MLflow's own loader, which runs serving.py; any other name could be the package's code
PIPELINE_CODE = "pipeline_code"
"""The artifact with all of `components`, in packages made from uncommitted code."""
MODEL, ADAPTER = "model", "adapter"
"""The folder of a full model and that of an adapter; a package has one of the two in `artifacts`."""
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "tokenizers", "torch", "transformers")
ADAPTER_REQUIREMENTS = ("peft",)
QUESTIONS = 10
_LABELS = b"retune.labels"
_LOADER_FILES = ("registered_model_meta",)  # MLflow writes it into a package when it loads it
_PICKLES = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".cloudpickle", ".dill", ".npy"}


def signature(task: tasks.Task) -> ModelSignature:
    """Return the MLflow signature of a task's models."""
    classes = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability"), ColSpec(Map(DataType.double), "probabilities")]
    answers = [ColSpec(DataType.string, "answer"), *([ColSpec(Map(DataType.double), "probabilities")] * task.scored)]
    outputs = classes if task.classes else answers
    return ModelSignature(inputs=Schema([*(ColSpec(DataType.string, name) for name in task.inputs)]), outputs=Schema([*outputs]))


def requirements(model: Path) -> list[str]:
    """Return the requirements for serving `model`, pinned to the installed releases without local build tags (torch's +cpu).

    An adapter requires peft for merging; a sentencepiece tokenizer requires its own packages.
    """
    more = (*(ADAPTER_REQUIREMENTS if model.name == ADAPTER else ()), *(PIECES if any(model.glob("*.spm")) else ()))
    return [f"{name}=={version(name).partition('+')[0]}" for name in sorted((*REQUIREMENTS, *more))]


def stored_folder(trained: Path) -> Path:
    """Return the folder of models/trained that is stored: the adapter if there is one, else the model."""
    return trained / ADAPTER if (trained / ADAPTER).is_dir() else trained / MODEL


def spec_folder(folder: Path) -> Path:
    """Return the folder of a package that contains retune.json and the tokenizer."""
    return stored_folder(folder / "artifacts")


def size_of(folder: Path) -> int:
    """Return the total size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def base_bytes(folder: Path) -> int:
    """Return the size in bytes of an adapter's base; 0 for a full model."""
    model = spec_folder(folder)
    return sum(part.bytes for part in AdapterManifest.read(model).base) if model.name == ADAPTER else 0


def build(folder: Path, model: Path, extras: Mapping[str, Path], ids: Mapping[str, str], code: Path = CODE) -> None:
    """Write a package with the folder `model` (named `model` or `adapter`), the `extras` by name, and the `SHIPPED` parts of `code`.

    `ids` are MLflow's identifiers of the package: artifact_path, run_id, model_id.
    """
    task = tasks.of(ModelSpec.read(model))
    with temporary() as staging:
        shipped = copy_code(code, staging, SHIPPED)
        save_model(
            path=str(folder),
            python_model=str(shipped / "model/serving.py"),
            code_paths=[str(shipped)],
            # As URIs: MLflow decodes sequences such as %25 in a path.
            artifacts={name: path.absolute().as_uri() for name, path in {model.name: model, **extras}.items()},
            signature=signature(task),
            input_example={name: [text] for name, text in task.example.items()},
            pip_requirements=requirements(model),
            mlflow_model=Model(
                artifact_path=ids["artifact_path"], run_id=ids["run_id"], model_uuid=ids["model_id"], model_id=ids["model_id"]
            ),
        )


def copy_code(code: Path, folder: Path, parts: Sequence[str] = ()) -> Path:
    """Copy `code`, or only its `parts`, to `components` in `folder` without compiled files; return the copy."""
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
    """Return a digest of all files of a package, except files created by loading it."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in _LOADER_FILES and "__pycache__" not in path.parts
    )
    return digest_value([(path.relative_to(folder).as_posix(), digest_file(path)) for path in files])


def check_files(folder: Path, weights: str, whole: str, adapter: str | None = None) -> None:
    """Check the files of a package, before any of its code runs, against the digests in its version's tags.

    `whole` is the digest of the package, `weights` of the model folder, and `adapter`, if stored instead, of the adapter folder.

    Raises:
        BadModel: lists all faults.
    """
    faults = [*_manifest_faults(folder), *_pickles(folder), *_compiled(folder)]
    name, digest = (MODEL, weights) if adapter is None else (ADAPTER, adapter)
    stored = folder / "artifacts" / name
    if not stored.is_dir() or digest_folder(stored) != digest:
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
    expected = {"loader_module": LOADER, "code": "code"}
    faults = [f"MLmodel: {name} is {conf.get(name)!r}, expected {value!r}" for name, value in expected.items() if conf.get(name) != value]
    if Path(str(conf.get("model_code_path"))).name != "serving.py":
        faults.append(f"MLmodel: model_code_path is {conf.get('model_code_path')!r}, expected serving.py")
    if "python_model" in conf:
        faults.append("MLmodel names a pickled python_model")
    if set(flavors) != {"python_function"}:
        faults.append(f"MLmodel has the flavors {', '.join(sorted(map(str, flavors)))}, expected only python_function")
    return faults


def _pickles(folder: Path) -> list[str]:
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _PICKLES)
    return [f"it contains files that may be pickles: {', '.join(pickles)}"] if pickles else []


def _compiled(folder: Path) -> list[str]:
    """Delete compiled files, which Python would run instead of the checked sources; return those that remain as faults."""
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    remaining = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pyc"))
    return [f"it contains compiled code that cannot be removed: {', '.join(remaining)}"] if remaining else []


def write_questions(workspace: Path, path: Path) -> Path:
    """Write the same ten test rows with their evaluated answers, spread over the test set."""
    predictions = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet")
    inputs = list(tasks.of(ModelSpec.read(workspace / "models/trained/model")).inputs)
    questions = rows.set_index("id")[inputs]
    chosen = [int(index * len(predictions.ids) / QUESTIONS) for index in range(min(QUESTIONS, len(predictions.ids)))]
    if missing := [str(predictions.ids[index]) for index in chosen if predictions.ids[index] not in questions.index]:
        raise NotFound(f"{workspace}: the predictions are from another run ({missing[0]} is not a test row): run `dvc repro`")
    table = pa.table(
        {
            **{name: pa.array([questions.at[str(predictions.ids[index]), name] for index in chosen], pa.string()) for name in inputs},
            "predicted": pa.array([str(predictions.predicted[index]) for index in chosen], pa.string()),
            "probabilities": pa.array([predictions.probabilities[index].tolist() for index in chosen], pa.list_(pa.float64())),
        }
    )
    pq.write_table(table.replace_schema_metadata({_LABELS: json.dumps(predictions.labels).encode()}), path)
    return path
