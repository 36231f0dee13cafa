"""Ask a registered version, in a process of its own: `python -P scoring.py MODEL TEXTS ANSWERS`.

It is run as a file, from a folder outside the repository, and imports nothing of Retune: `components` must come from the
model's own package, or a champion would answer with today's code. Reads a Parquet file with the column `text`; writes
`predicted` and `probabilities` (in the order of the labels, which stand in the file's metadata) by rename.
"""

import json
import os
import sys
from pathlib import Path


def main(model: str, texts: str, answers: str) -> None:
    """Load `model` (a models:/ URI) and answer."""
    import mlflow.pyfunc
    import pyarrow as pa
    import pyarrow.parquet as pq

    if "components" in sys.modules:
        raise SystemExit("components was imported before the model: its own code would not be used")
    loaded = mlflow.pyfunc.load_model(model)
    rows = pq.read_table(texts, columns=["text"]).to_pandas()
    answered = loaded.predict(rows)
    labels = list(loaded.unwrap_python_model().predictor.labels)
    table = pa.table(
        {
            "predicted": pa.array(answered["label"].tolist(), pa.string()),
            "probabilities": pa.array([[row[label] for label in labels] for row in answered["probabilities"]], pa.list_(pa.float64())),
        }
    )
    code = str(Path(sys.modules["components"].__file__ or "").parent)
    table = table.replace_schema_metadata({"retune.labels": json.dumps(labels), "retune.code": code})
    partial = Path(answers + ".partial")
    pq.write_table(table, partial)
    os.replace(partial, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
