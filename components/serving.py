"""The registered model: raw text in, label and probabilities out, by the code and the preprocessing that trained it.

MLflow runs this file ("models from code") in a process whose import path starts with the model's own copy of
`components`; nothing is pickled. Reads the packaged model folder; writes nothing.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from components import tasks
from components.artifacts.training import ModelSpec


class RawText(PythonModel):
    """Answers a frame with the column `text`; an empty text is answered, what is not text is refused by its row."""

    def load_context(self, context: Any) -> None:
        """Load the model folder with the predictor of its task."""
        folder = Path(context.artifacts["model"])
        self.predictor = tasks.load(ModelSpec.read(folder).task).predictor(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return `label`, `probability` and `probabilities` (label to probability) for each row."""
        texts = texts_of(model_input)
        labels = self.predictor.labels
        rows = [dict(zip(labels, map(float, answer), strict=True)) for answer in self.predictor.probabilities(texts)]
        best = [max(row, key=row.__getitem__) for row in rows]
        return pd.DataFrame(
            {
                "label": pd.Series(best, dtype="str"),
                "probability": pd.Series([row[label] for row, label in zip(rows, best, strict=True)], dtype="float64"),
                "probabilities": pd.Series(rows, dtype="object"),
            }
        )


def texts_of(frame: Any) -> list[str]:
    """Return the texts of a frame.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, which a scoring server answers with status 400.
    """
    if not isinstance(frame, pd.DataFrame) or "text" not in frame.columns:
        found = list(map(str, frame.columns)) if isinstance(frame, pd.DataFrame) else type(frame).__name__
        raise MlflowException.invalid_parameter_value(f"expected a table with the column 'text', found {found}")
    texts = frame["text"].tolist()
    if bad := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        shown = ", ".join(map(str, bad[:10]))
        raise MlflowException.invalid_parameter_value(f"'text' must be text in every row; it is missing or of another type in row {shown}")
    return texts


set_model(RawText())
