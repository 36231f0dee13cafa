"""The alternatives that `python -m bench auto` compares with, each as its documentation shows it, in a process of its own.

`python -m bench._sides SIDE FOLDER OUT` reads a problem from FOLDER and writes its answers to OUT, with the seconds of the search.
tfidf: TF-IDF of words or characters with a linear model, chosen on validation; for tags and vectors the task's own baselines.
probe: a linear model on frozen vectors of the base, chosen on validation. trainer: transformers' Trainer, 3 epochs with 2e-5.
optuna: `Trainer.hyperparameter_search` within the minutes; the best trial answers. setfit: bench/_setfit.py with another interpreter.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench._problem import Answers, Clock, Problem, best_on_validation, targets, to_answers, write_answers

NOT_APPLICABLE = 3  # exit code
NGRAMS: tuple[dict[str, Any], ...] = (
    {"ngram_range": (1, 2)},
    {"analyzer": "char_wb", "ngram_range": (2, 4)},
    {"analyzer": "char", "ngram_range": (1, 3)},
)
Result = dict[str, Answers]
Features = Callable[[str], Any]
"""Maps a split to the features of its rows; cached, so that test rows are read after the search."""
IMPORTS = {
    "tfidf": ("sklearn.linear_model", "sklearn.multiclass", "sklearn.feature_extraction.text"),
    "probe": ("sklearn.linear_model", "sklearn.multiclass", "sentence_transformers"),
    "trainer": ("bench._trainer", "sentence_transformers", "datasets"),
    "optuna": ("bench._trainer", "optuna"),
}
"""What a side imports before its clock starts: the budget of `auto` starts after imports too."""


class NotApplicable(Exception):
    """The side has no model for the kind of labels."""


def main(side: str, folder: str, out: str) -> None:
    problem = Problem.read(Path(folder))
    for name in IMPORTS[side]:
        importlib.import_module(name)
    clock = Clock(problem.minutes)
    answers = SIDES[side](problem, clock)
    write_answers(answers, Path(out), seconds=round(clock.seconds(), 1))


def tfidf(problem: Problem, clock: Clock) -> Result:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if problem.kind in ("tags", "vectors"):
        return own_baselines(problem, clock)

    def vectors(vectorizer: Any, split: str) -> Any:
        return vectorizer.transform(problem.part(split)["text"])

    def features() -> Iterator[Features]:
        for settings in NGRAMS:
            vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=1 if len(problem.rows) < 5_000 else 2, **settings)
            yield cache(partial(vectors, vectorizer.fit(problem.part("train")["text"])))

    return best_on_validation(problem, clock, (candidate for own in features() for candidate in linear(problem, own)))


def probe(problem: Problem, clock: Clock) -> Result:
    from sentence_transformers import SentenceTransformer

    if problem.kind == "vectors":
        raise NotApplicable
    if problem.kind == "tags":
        return best_on_validation(problem, clock, token_probes(problem))
    encoder = SentenceTransformer(problem.base)
    encoder.max_seq_length = problem.max_length

    @cache
    def features(split: str) -> Any:
        return encoder.encode(problem.part(split)["text"].tolist(), show_progress_bar=False)

    return best_on_validation(problem, clock, linear(problem, features))


def linear(problem: Problem, features: Features) -> Iterator[Callable[[str], Answers]]:
    """Yield linear models on features, with each regularisation and class weight."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    expected = np.array(targets(problem.kind, problem.labels, problem.part("train")["label"]))

    def answer(model: Any, split: str) -> Answers:
        values = model.predict(features(split)) if problem.kind == "regression" else model.decision_function(features(split))
        if problem.kind == "single" and values.ndim == 1:
            values = np.stack([-values, values], axis=1)
        return Answers(to_answers(problem.kind, problem.labels, values))

    for strength in (1.0, 10.0, 0.1, 100.0):
        for weights in (None,) if problem.kind == "regression" else (None, "balanced"):
            model: Any = Ridge(1 / strength)
            if problem.kind != "regression":
                model = LogisticRegression(C=strength, class_weight=weights, max_iter=500)
            yield partial(answer, (OneVsRestClassifier(model) if problem.kind == "multi" else model).fit(features("train"), expected))


def token_probes(problem: Problem) -> Iterator[Callable[[str], Answers]]:
    """Yield logistic regressions on the vector of each token's first sub-word."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(problem.base), AutoModel.from_pretrained(problem.base).eval()

    @cache
    def vectors(split: str) -> list[Any]:
        own, found = sentences(problem, split), list[Any]()
        with torch.inference_mode():
            for start in range(0, len(own), 32):
                batch = tokenizer([tokens for tokens, _ in own[start : start + 32]], **of_words(problem), padding=True, return_tensors="pt")
                hidden = model(**batch).last_hidden_state.numpy()
                found += [hidden[at, first(batch.word_ids(at))] for at in range(len(hidden))]
        return found

    tags = [tag for (_, tags), own in zip(sentences(problem, "train"), vectors("train"), strict=True) for tag in tags[: len(own)]]

    def answer(fitted: Any, split: str) -> Answers:
        predicted = [fitted.predict(own).tolist() if len(own) else [] for own in vectors(split)]
        return Answers([filled(own, tokens) for own, (tokens, _) in zip(predicted, sentences(problem, split), strict=True)])

    for strength in (1.0, 0.1, 10.0):
        yield partial(answer, LogisticRegression(C=strength, max_iter=200).fit(np.concatenate(vectors("train")), tags))


def own_baselines(problem: Problem, clock: Clock) -> Result:
    """Return the best of the task's own baselines."""
    fitted = problem.made_task.fit_baselines(problem.part("train"), problem.spec, Path(problem.base))

    def answer(baseline: Any, split: str) -> Answers:
        return Answers.from_output(baseline(problem.part(split)))

    return best_on_validation(problem, clock, (partial(answer, baseline) for baseline in fitted.values()))


def trainer(problem: Problem, clock: Clock) -> Result:
    from bench import _trainer

    with tempfile.TemporaryDirectory() as folder:
        if problem.kind == "vectors":
            return _trainer.vectors(problem, Path(folder), clock)
        return _trainer.plain(problem, Path(folder), clock)


def optuna(problem: Problem, clock: Clock) -> Result:
    from bench import _trainer

    if problem.kind == "vectors":
        raise NotApplicable
    with tempfile.TemporaryDirectory() as folder:
        return _trainer.searched(problem, Path(folder), clock)


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
