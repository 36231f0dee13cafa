"""The side `setfit` of `python -m bench auto`; it needs only setfit and pandas, because setfit may not fit the project's versions.

`PYTHON bench/_setfit.py FOLDER OUT`, with the interpreter of an environment in which setfit is installed.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from transformers import TrainerCallback

USABLE = 0.85  # of the minutes, for the body; the rest is for the head and the answers
STEPS = 500  # setfit's own default of later releases is a whole epoch of all pairs, which takes hours


class BodyDeadline(TrainerCallback):
    """Stop the training of the body at a time."""

    def __init__(self, at: float) -> None:
        self.at = at

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or time.time() > self.at


def main(folder: str, out: str) -> None:
    problem = json.loads((Path(folder) / "problem.json").read_text(encoding="utf-8"))
    rows = pd.read_parquet(Path(folder) / "rows.parquet")
    parts = {split: rows[rows["split"] == split].reset_index(drop=True) for split in ("train", "validation", "test")}
    now = time.time()
    model = SetFitModel.from_pretrained(problem["base"])
    model.model_body.max_seq_length = problem["max_length"]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                scratch, batch_size=16, max_steps=STEPS, seed=problem["seed"], save_strategy="no", report_to="none", show_progress_bar=False
            ),
            train_dataset=Dataset.from_pandas(parts["train"][["text", "label"]], preserve_index=False),
            callbacks=[BodyDeadline(now + USABLE * 60 * problem["minutes"])],
        )
        trainer.train()
    answers: dict[str, Any] = {}
    for split in ("validation", "test"):
        answers[split] = {"predicted": [str(label) for label in model.predict(parts[split]["text"].tolist())], "measured": {}}
        answers.setdefault("seconds", round(time.time() - now, 1))  # of the search: without the answers for test rows
    Path(out).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
