"""The alternatives that `python -m bench auto` compares with, each as its documentation shows it, in a process of its own.

`python -m bench._sides SIDE FOLDER OUT DEADLINE` reads a problem from FOLDER and writes its answers to OUT; DEADLINE is as `time.time()`.
tfidf: TF-IDF of words or characters with a linear model, chosen on validation; for tags and vectors the task's own baselines.
probe: a linear model on frozen vectors of the base, chosen on validation. trainer: transformers' Trainer, 3 epochs with 2e-5.
optuna: `Trainer.hyperparameter_search` within the minutes; the best trial answers. setfit: bench/_setfit.py with another interpreter.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench._problem import HELD_OUT, Answers, Problem, best_on_validation, targets, to_answers, write_answers

NOT_APPLICABLE = 3  # exit code
USABLE = 0.92  # of the time, before a training stops: the rest is for answers
NGRAMS: tuple[dict[str, Any], ...] = (
    {"ngram_range": (1, 2)},
    {"analyzer": "char_wb", "ngram_range": (2, 4)},
    {"analyzer": "char", "ngram_range": (1, 3)},
)
Result = dict[str, Answers]


class NotApplicable(Exception):
    """The side has no model for the kind of labels."""


def main(side: str, folder: str, out: str, deadline: str) -> None:
    problem = Problem.read(Path(folder))
    answers = SIDES[side](problem, float(deadline))
    write_answers(answers, Path(out))


def tfidf(problem: Problem, deadline: float) -> Result:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if problem.kind in ("tags", "vectors"):
        return own_baselines(problem, deadline)

    def features() -> Iterator[dict[str, Any]]:
        for settings in NGRAMS:
            vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=1 if len(problem.rows) < 5_000 else 2, **settings)
            fitted = vectorizer.fit_transform(problem.part("train")["text"])
            yield {"train": fitted} | {split: vectorizer.transform(problem.part(split)["text"]) for split in HELD_OUT}

    return best_on_validation(problem, deadline, (candidate for own in features() for candidate in linear(problem, own)))


def probe(problem: Problem, deadline: float) -> Result:
    from sentence_transformers import SentenceTransformer

    if problem.kind == "vectors":
        raise NotApplicable
    if problem.kind == "tags":
        return best_on_validation(problem, deadline, token_probes(problem))
    encoder = SentenceTransformer(problem.base)
    encoder.max_seq_length = problem.max_length
    features = {split: encoder.encode(problem.part(split)["text"].tolist(), show_progress_bar=False) for split in ("train", *HELD_OUT)}
    return best_on_validation(problem, deadline, linear(problem, features))


def linear(problem: Problem, features: dict[str, Any]) -> Iterator[Callable[[str], Answers]]:
    """Yield linear models on features by split, with each regularisation and class weight."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    expected = np.array(targets(problem.kind, problem.labels, problem.part("train")["label"]))

    def answer(model: Any, split: str) -> Answers:
        values = model.predict(features[split]) if problem.kind == "regression" else model.decision_function(features[split])
        if problem.kind == "single" and values.ndim == 1:
            values = np.stack([-values, values], axis=1)
        return Answers(to_answers(problem.kind, problem.labels, values))

    for strength in (1.0, 10.0, 0.1, 100.0):
        for weights in (None,) if problem.kind == "regression" else (None, "balanced"):
            model: Any = Ridge(1 / strength)
            if problem.kind != "regression":
                model = LogisticRegression(C=strength, class_weight=weights, max_iter=500)
            yield partial(answer, (OneVsRestClassifier(model) if problem.kind == "multi" else model).fit(features["train"], expected))


def token_probes(problem: Problem) -> Iterator[Callable[[str], Answers]]:
    """Yield logistic regressions on the vector of each token's first sub-word."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(problem.base), AutoModel.from_pretrained(problem.base).eval()
    rows = {split: sentences(problem, split) for split in ("train", *HELD_OUT)}
    vectors: dict[str, list[Any]] = {split: [] for split in rows}
    with torch.inference_mode():
        for split, own in rows.items():
            for start in range(0, len(own), 32):
                batch = tokenizer([tokens for tokens, _ in own[start : start + 32]], **of_words(problem), padding=True, return_tensors="pt")
                hidden = model(**batch).last_hidden_state.numpy()
                vectors[split] += [hidden[at, first(batch.word_ids(at))] for at in range(len(hidden))]
    tags = [tag for (_, tags), own in zip(rows["train"], vectors["train"], strict=True) for tag in tags[: len(own)]]

    def answer(fitted: Any, split: str) -> Answers:
        predicted = [fitted.predict(own).tolist() if len(own) else [] for own in vectors[split]]
        return Answers([filled(own, tokens) for own, (tokens, _) in zip(predicted, rows[split], strict=True)])

    for strength in (1.0, 0.1, 10.0):
        yield partial(answer, LogisticRegression(C=strength, max_iter=200).fit(np.concatenate(vectors["train"]), tags))


def own_baselines(problem: Problem, deadline: float) -> Result:
    """Return the best of the task's own baselines."""
    outputs = {
        split: problem.made_task.predict_baselines(problem.part("train"), problem.part(split), problem.spec, Path(problem.base))
        for split in HELD_OUT
    }
    names = list(outputs["test"])
    return best_on_validation(problem, deadline, (lambda split, name=name: Answers.of(outputs[split][name]) for name in names))


def trainer(problem: Problem, deadline: float) -> Result:
    from bench import _trainer

    started = time.time()
    usable = started + USABLE * (deadline - started)
    with tempfile.TemporaryDirectory() as folder:
        if problem.kind == "vectors":
            return _trainer.vectors(problem, Path(folder), usable)
        return _trainer.plain(problem, Path(folder), usable)


def optuna(problem: Problem, deadline: float) -> Result:
    from bench import _trainer

    if problem.kind == "vectors":
        raise NotApplicable
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        return _trainer.searched(problem, Path(folder), started + USABLE * (deadline - started))


def sentences(problem: Problem, split: str) -> list[tuple[list[str], list[str]]]:
    """Return tokens and tags of each row."""
    rules = problem.made_task.rows  # type: ignore[attr-defined]
    return [(rules.tokens(row), rules.tags(row)) for row in rules.records(problem.part(split))]


def of_words(problem: Problem) -> dict[str, Any]:
    """Return the tokenizer's arguments for lists of words."""
    return {"is_split_into_words": True, "truncation": True, "max_length": problem.max_length}


def first(words: list[int | None]) -> list[int]:
    """Return the position of the first sub-word of each word."""
    return [at for at, word in enumerate(words) if word is not None and (at == 0 or words[at - 1] != word)]


def filled(tags: list[str], tokens: list[str]) -> str:
    """Return the tags of a sentence as the task writes them; tokens that were cut have the most frequent kind of tag, O."""
    return " ".join([*tags, *["O"] * (len(tokens) - len(tags))])


SIDES = {"tfidf": tfidf, "probe": probe, "trainer": trainer, "optuna": optuna}

if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except NotApplicable:
        sys.exit(NOT_APPLICABLE)
