"""The registered model: raw rows in, answers out, by the code and the preprocessing that trained it.

MLflow runs this file ("models from code") in a process whose import path starts with the model's own copy of
`components`; nothing is pickled. Reads the packaged model folder; writes nothing, but for a version that is stored as an adapter a
temporary folder, which is gone once the model is loaded.
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
    """Answers a frame with the task's input columns; an empty text is answered, what is not text is refused by its row."""

    def load_context(self, context: Any) -> None:
        """Load the model folder with the predictor of its task; where there is an adapter instead, merge it into its base first.

        Raises:
            BadModel: the base is not at hand, or is another one.
        """
        with ExitStack() as stack:
            whole = context.artifacts.get("model")
            folder = Path(whole) if whole else stack.enter_context(_merged(Path(context.artifacts["adapter"])))
            task = tasks.of(ModelSpec.read(folder))
            self.inputs, self.predictor = task.inputs, task.predictor(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return for each row `label`, `probability` and `probabilities` (label to probability), or `answer` where there are no classes.

        Where an answer is made of labels, as a set of them is, `probabilities` are beside it too.
        """
        rows = rows_of(model_input, self.inputs)
        try:
            return frame_of(self.predictor.answer(rows))
        except BadData as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


@contextmanager
def _merged(folder: Path) -> Iterator[Path]:
    """Give the whole model of an adapter, for as long as it takes to load it; its base may be a version of MLflow's registry."""
    from components.model import adapter  # peft, which a version that is stored whole does not ask for
    from components.model.base_resolver import find_base

    uri = mlflow.get_tracking_uri()
    with ExitStack() as stack, adapter.merged(folder, lambda record: find_base(record, partial(_registered, stack=stack), uri)) as whole:
        yield whole


def _registered(model: str, stack: ExitStack) -> Path:
    """Return the folder of models:/NAME/VERSION in the registry at hand; a whole model for as long as `stack` is open.

    Raises:
        NotThere: that registry has no such version, or it cannot be reached.
    """
    name, _, number = model.removeprefix("models:/").partition("/")
    uri = mlflow.get_tracking_uri()
    try:
        client = mlflow.MlflowClient()
        place = client.get_model_version_download_uri(name, number)
        if place.startswith("models:/"):
            place = str(client.get_logged_model(place.removeprefix("models:/")).artifact_location)
        artifacts = Path(mlflow.artifacts.download_artifacts(artifact_uri=place)) / "artifacts"
    except (MlflowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotFound(f"the registry at {uri} does not give it ({reason}); name the registry in MLFLOW_TRACKING_URI") from error
    if (artifacts / "adapter").is_dir():
        return stack.enter_context(_merged(artifacts / "adapter"))
    return artifacts / "model"


def frame_of(answers: ModelOutput) -> pd.DataFrame:
    """Return answers as the frame that is served."""
    dtypes = {"label": "str", "probability": "float64", "probabilities": "object", "answer": "str"}
    return pd.DataFrame({name: pd.Series(values, dtype=dtypes[name]) for name, values in served_columns(answers).items()})


def rows_of(frame: Any, inputs: Sequence[str]) -> pd.DataFrame:
    """Return the columns `inputs` of a frame, all of them text.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, which a scoring server answers with status 400.
    """
    wanted = ", ".join(map(repr, inputs))
    if not isinstance(frame, pd.DataFrame) or not set(inputs) <= set(frame.columns):
        found = list(map(str, frame.columns)) if isinstance(frame, pd.DataFrame) else type(frame).__name__
        column = "column" if len(inputs) == 1 else "columns"
        raise MlflowException.invalid_parameter_value(f"expected a table with the {column} {wanted}, found {found}")
    for name in inputs:
        if bad := [row for row, cell in enumerate(frame[name].tolist()) if not isinstance(cell, str)]:
            shown = ", ".join(map(str, bad[:10]))
            raise MlflowException.invalid_parameter_value(
                f"{name!r} must be text in every row; it is missing or of another type in row {shown}"
            )
    return frame[list(inputs)].reset_index(drop=True)


set_model(RawRows())
