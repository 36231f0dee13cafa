"""Conversations of two turns, the second one word by word in another language."""

import json
from pathlib import Path

import pandas as pd

from tests.cases.sequence_to_sequence import phrases
from tests.line import Case
from tests.tiny_generators import make_gpt2


def make(folder: Path) -> Case:
    talks = [[{"role": "user", "content": one}, {"role": "assistant", "content": other}] for one, other in phrases()]
    rows = [{"messages": json.dumps(talk)} for talk in [*talks, talks[0][:1]]]
    return Case(
        *("causal_lm", pd.DataFrame(rows), make_gpt2(folder, [turn["content"] for talk in talks for turn in talk] * 2)),
        metric="log_likelihood",
        measure="log_likelihood",
        baseline="base",
        options={"data": "chat", "packing": True, "max_new_tokens": 8},
        changes={"gates": {"floor": {"at_least": -100.0}}, "preprocess": {"max_length": 48}},
    )
