"""The registered model: raw rows in, answers out, by the code and the preprocessing that trained it.

MLflow runs this file ("models from code") in a process whose import path starts with the model's own copy of
`components`; nothing is pickled. Reads the packaged model folder; writes nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from components import tasks
from components.artifacts.predictions import Answers, by_row, probabilities_of
from components.artifacts.training import ModelSpec
from components.errors import BadData


class RawRows(PythonModel):
    """Answers a frame with the task's input columns; an empty text is answered, what is not text is refused by its row."""

    def load_context(self, context: Any) -> None:
        """Load the model folder with the predictor of its task."""
        folder = Path(context.artifacts["model"])
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


def frame_of(answers: Answers) -> pd.DataFrame:
    """Return answers as the frame that is served."""
    if not answers.labels:
        beside = {"probabilities": pd.Series(by_row(found), dtype="object")} if (found := probabilities_of(answers.measured)) else {}
        return pd.DataFrame({"answer": pd.Series(answers.predicted, dtype="str"), **beside})
    rows = [dict(zip(answers.labels, map(float, answer), strict=True)) for answer in answers.probabilities]
    return pd.DataFrame(
        {
            "label": pd.Series(answers.predicted, dtype="str"),
            "probability": pd.Series([row[label] for row, label in zip(rows, answers.predicted, strict=True)], dtype="float64"),
            "probabilities": pd.Series(rows, dtype="object"),
        }
    )


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
