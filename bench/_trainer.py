"""Fine-tuning as the documentation of transformers and sentence-transformers shows it, for the sides `trainer` and `optuna`."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bench._problem import Answers, Clock, Problem, targets, to_answers
from bench._sides import Result, filled, first, of_words, sentences

USABLE = 0.92  # of the minutes, before a training stops: the rest is for answers on validation rows
DEFAULTS = {"num_train_epochs": 3, "learning_rate": 2e-5, "per_device_train_batch_size": 16, "weight_decay": 0.01}
KINDS = {"single": "single_label_classification", "multi": "multi_label_classification", "regression": "regression"}


class Deadline(TrainerCallback):
    """Stop the training near the end of the minutes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or self.clock.over(USABLE)


def plain(problem: Problem, folder: Path, clock: Clock) -> Result:
    """Train once with the usual defaults."""
    made = make(problem, folder, clock)
    made.train()
    found = answers(problem, made, "validation")
    clock.stop()
    return {"validation": found, "test": answers(problem, made, "test")}


def searched(problem: Problem, folder: Path, clock: Clock) -> Result:
    """Search learning rate, epochs and batch size; the answers are those of the best trial, without a second training."""
    made, best = make(problem, folder, clock), list[tuple[float, Answers, Any]]()

    def objective(_: dict[str, float]) -> float:
        found = answers(problem, made, "validation")
        value = problem.score("validation", found)
        if not best or value > best[0][0]:
            best[:] = [(value, found, made.model)]  # each trial has a new model
        return value

    def space(trial: Any) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-4, log=True),
            "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 10),
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [16, 32, 64]),
        }

    left = max(USABLE * clock.limit - clock.seconds(), 1.0)
    made.hyperparameter_search(space, objective, n_trials=1_000, direction="maximize", backend="optuna", timeout=left)
    clock.stop()
    _, found, made.model = best[0]
    return {"validation": found, "test": answers(problem, made, "test")}


def make(problem: Problem, folder: Path, clock: Clock) -> Trainer:
    """Return a Trainer with a new model for each training; the evaluation split is small, because only the answers count."""
    tokenizer = AutoTokenizer.from_pretrained(problem.base)
    tags = problem.kind == "tags"
    model_class = AutoModelForTokenClassification if tags else AutoModelForSequenceClassification
    settings: dict[str, Any] = {"num_labels": 1 if problem.kind == "regression" else len(problem.labels)}
    settings |= {} if tags else {"problem_type": KINDS[problem.kind]}
    data = encoded(problem, tokenizer, "train")
    arguments = TrainingArguments(
        str(folder), **DEFAULTS, seed=problem.seed, save_strategy="no", report_to="none", disable_tqdm=True, log_level="error",
        dataloader_pin_memory=False,
    )  # fmt: skip
    return Trainer(
        args=arguments,
        model_init=lambda: model_class.from_pretrained(problem.base, **settings),
        train_dataset=data,
        eval_dataset=data[:8],  # hyperparameter_search needs one; the objective asks for answers itself
        data_collator=(DataCollatorForTokenClassification if tags else DataCollatorWithPadding)(tokenizer),
        callbacks=[Deadline(clock)],
        processing_class=tokenizer,
    )


def encoded(problem: Problem, tokenizer: Any, split: str) -> Any:
    """Return the rows of a split as a list of model inputs."""
    if problem.kind != "tags":
        rows = problem.part(split)
        inputs = tokenizer(rows["text"].tolist(), truncation=True, max_length=problem.max_length)
        labels = targets(problem.kind, problem.labels, rows["label"])
        return [{"input_ids": ids, "labels": label} for ids, label in zip(inputs["input_ids"], labels, strict=True)]
    index = {tag: number for number, tag in enumerate(problem.labels)}
    examples = []
    for tokens, tags in sentences(problem, split):
        inputs = tokenizer(tokens, **of_words(problem))
        places = first(inputs.word_ids())
        labels = np.full(len(inputs["input_ids"]), -100)
        labels[places] = [index[tag] for tag in tags[: len(places)]]
        examples.append({"input_ids": inputs["input_ids"], "labels": labels.tolist()})
    return examples


def answers(problem: Problem, made: Trainer, split: str) -> Answers:
    data = encoded(problem, made.processing_class, split)
    outputs: Any = made.predict(data)
    logits = outputs.predictions
    if problem.kind != "tags":
        return Answers(to_answers(problem.kind, problem.labels, logits))
    tags, texts = problem.labels, []
    for row, labels, (tokens, _) in zip(logits, outputs.label_ids, sentences(problem, split), strict=True):
        texts.append(filled([tags[at] for at in row[labels != -100].argmax(axis=-1)], tokens))
    return Answers(texts)


def vectors(problem: Problem, folder: Path, clock: Clock) -> Result:
    """Train an encoder with in-batch negatives, and let the task measure its vectors."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(problem.base)
    model.max_seq_length = problem.max_length
    arguments = SentenceTransformerTrainingArguments(
        str(folder / "out"), **DEFAULTS, seed=problem.seed, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_pandas(problem.part("train")[["anchor", "positive"]], preserve_index=False),
        loss=losses.MultipleNegativesRankingLoss(model),
        callbacks=[Deadline(clock)],
    ).train()
    model.save_pretrained(str(folder / "model"))
    problem.spec.write(folder / "model")
    predictor = problem.made_task.predictor(folder / "model")
    found = Answers.from_output(predictor.answer(problem.part("validation")))
    clock.stop()
    return {"validation": found, "test": Answers.from_output(predictor.answer(problem.part("test")))}
