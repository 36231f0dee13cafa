"""Tickets with the word "account": the answer is the next word."""

import json
import random
from pathlib import Path

import pandas as pd

from tests.support.pipeline import Case
from tests.support.tickets import FILLER, TOPICS, WORDS
from tests.support.tiny import make_tiny_base


def make(folder: Path) -> Case:
    draw, rows = random.Random(5), []
    for number in range(160):
        filler, position = draw.sample(FILLER, 6), draw.randrange(7)
        answer = draw.choice([*TOPICS["network"], *TOPICS["device"]])
        context = " ".join([*filler[:position], "account", answer, *filler[position:], "end."])
        start = context.index(f"account {answer}") + len("account ")
        answers = {"text": [answer], "answer_start": [start]}
        rows.append({"id": f"r{number:03d}", "question": f"which account {number}", "context": context, "answers": json.dumps(answers)})
    word = rows[0]["context"].split()[1]
    bad = [{"text": text, "answer_start": [0] * len(text)} for text in (["nowhere"], [word], [])]
    rows += [rows[0] | {"id": f"bad{index}", "answers": json.dumps(answers)} for index, answers in enumerate(bad)]
    words = sorted({*WORDS, "which", "end", "."})
    base = make_tiny_base(folder, words)
    return Case(
        *("question_answering", pd.DataFrame(rows), base),
        metric="span_accuracy",
        measure="f1",
        baseline="overlap",
        margin=0.5,
        bad={
            "the answer is not in the context": 1,
            "answer_start does not point to the answer, which is elsewhere in the context (count characters from 0, not bytes)": 1,
            "no answer, but task_options.unanswerable is false": 1,
        },
        changes={"preprocess": {"max_length": 48}, "train": {"epochs": 3, "evaluations_per_epoch": 1}},
    )
