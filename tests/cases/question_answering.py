"""Who did what to the ticket: the answer is the one word after another, or there is none."""

import json
import random
from pathlib import Path

import pandas as pd

from tests.conftest import FILLER, TOPICS
from tests.line import Case
from tests.tiny import make_tiny_base


def make(folder: Path) -> Case:
    draw, rows = random.Random(5), []
    for number in range(240):
        things = [draw.choice(words) for words in TOPICS.values()]
        context = " ".join([*draw.sample(FILLER, 3), f"account {things[0]}", *draw.sample(FILLER, 2), f"outage {things[1]} end."])
        asked, answer = draw.choice([("account", things[0]), ("outage", things[1])])
        start = context.index(f"{asked} {answer}") + len(asked) + 1
        answers = {"text": [answer], "answer_start": [start]}
        rows.append({"id": f"r{number:03d}", "question": f"which {asked} {number}", "context": context, "answers": json.dumps(answers)})
    word = rows[0]["context"].split()[1]
    bad = [{"text": text, "answer_start": [0] * len(text)} for text in (["nowhere"], [word], [])]
    rows += [rows[0] | {"id": f"bad{place}", "answers": json.dumps(answers)} for place, answers in enumerate(bad)]
    words = sorted({word for topic in TOPICS.values() for word in topic} | set(FILLER) | {"which", "end", "."})
    base = make_tiny_base(folder, words)
    return Case(
        *("question_answering", pd.DataFrame(rows), base),
        metric="span_accuracy",
        measure="f1",
        baseline="overlap",
        bad={
            "the answer is not in the context": 1,
            "answer_start does not point at the answer: it stands elsewhere in the context (count characters from 0, not bytes)": 1,
            "no answer, and task_options.unanswerable is false": 1,
        },
        changes={"preprocess": {"max_length": 48}},
    )
