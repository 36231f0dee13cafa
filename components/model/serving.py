"""The registered model: takes raw rows and returns answers, with the code and the preprocessing of its training.

MLflow runs this file ("models from code") in a process whose import path starts with the model's own copy of
`components`; nothing is pickled. Reads the packaged model folder; writes nothing, except a temporary folder while it loads a version
that is stored as an adapter.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from components.artifacts.predictions import ModelOutput, served_columns
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, NotFound
from components.model import tasks


class RawRows(PythonModel):
    """Answers a frame with the task's input columns; empty texts are answered, cells that are not text are refused with their row."""

    def load_context(self, context: Any) -> None:
        """Load the model folder with the predictor of its task; an adapter is merged into its base first.

        Raise BadModel if the base is missing or differs.
        """
        with ExitStack() as stack:
            model = context.artifacts.get("model")
            folder = Path(model) if model else stack.enter_context(_merged(Path(context.artifacts["adapter"])))
            task = tasks.of(ModelSpec.read(folder))
            self.inputs, self.predictor = task.inputs, task.predictor(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return for each row `label`, `probability` and `probabilities` (label to probability), or `answer` for a task without classes.

        Answers that consist of labels, such as a set of labels, have `probabilities` too.
        """
        rows = rows_of(model_input, self.inputs)
        try:
            return frame_of(self.predictor.answer(rows))
        except BadData as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


@contextmanager
def _merged(folder: Path) -> Iterator[Path]:
    """Yield the merged model of an adapter while it is loaded; its base may be a version in MLflow's registry."""
    from components.model import adapter  # needs peft, which a merged version does not require
    from components.model.base_resolver import find_base

    uri = mlflow.get_tracking_uri()
    with ExitStack() as stack, adapter.merged(folder, lambda record: find_base(record, partial(_registered, stack=stack), uri)) as model:
        yield model


def _registered(model: str, stack: ExitStack) -> Path:
    """Return the model folder of models:/NAME/VERSION in the current registry; a merged one exists while `stack` is open.

    Raise NotFound if the registry does not have the version, or is unreachable.
    """
    name, _, number = model.removeprefix("models:/").partition("/")
    uri = mlflow.get_tracking_uri()
    try:
        client = mlflow.MlflowClient()
        location = client.get_model_version_download_uri(name, number)
        if location.startswith("models:/"):
            location = str(client.get_logged_model(location.removeprefix("models:/")).artifact_location)
        artifacts = Path(mlflow.artifacts.download_artifacts(artifact_uri=location)) / "artifacts"
    except (MlflowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotFound(f"the registry at {uri} does not provide it ({reason}); set MLFLOW_TRACKING_URI to the registry") from error
    if (artifacts / "adapter").is_dir():
        return stack.enter_context(_merged(artifacts / "adapter"))
    return artifacts / "model"


def frame_of(answers: ModelOutput) -> pd.DataFrame:
    """Return answers as the frame that is served."""
    dtypes = {"label": "str", "probability": "float64", "probabilities": "object", "answer": "str"}
    return pd.DataFrame({name: pd.Series(values, dtype=dtypes[name]) for name, values in served_columns(answers).items()})


def rows_of(frame: Any, inputs: Sequence[str]) -> pd.DataFrame:
    """Return the columns `inputs` of a frame after checking that all cells are text.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, for which a scoring server returns status 400.
    """
    names = ", ".join(map(repr, inputs))
    if not isinstance(frame, pd.DataFrame) or not set(inputs) <= set(frame.columns):
        columns = list(map(str, frame.columns)) if isinstance(frame, pd.DataFrame) else type(frame).__name__
        column = "column" if len(inputs) == 1 else "columns"
        raise MlflowException.invalid_parameter_value(f"expected a table with the {column} {names}, found {columns}")
    for name in inputs:
        if bad := [row for row, cell in enumerate(frame[name].tolist()) if not isinstance(cell, str)]:
            shown = ", ".join(map(str, bad[:10]))
            raise MlflowException.invalid_parameter_value(
                f"{name!r} must be text in every row; it is missing or of another type in row {shown}"
            )
    return frame[list(inputs)].reset_index(drop=True)


set_model(RawRows())
