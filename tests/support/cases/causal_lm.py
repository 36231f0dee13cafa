"""Conversations of two turns: a phrase with a colour, and the colour in another language."""

import json
from pathlib import Path

import pandas as pd

from tests.support.cases.sequence_to_sequence import phrases
from tests.support.pipeline import Case
from tests.support.tiny_generators import make_llama


def make(folder: Path) -> Case:
    chats = [[{"role": "user", "content": source}, {"role": "assistant", "content": target}] for source, target in phrases()]
    user, assistant = chats[0]
    bad = [[user], [assistant, user], [user, user, assistant], [user, assistant | {"content": "\u200b"}], [user, {"role": "assistant"}]]
    rows = [{"messages": json.dumps(chat)} for chat in [*chats, *bad]]
    return Case(
        *("causal_lm", pd.DataFrame(rows), make_llama(folder, [turn["content"] for chat in chats for turn in chat] * 2)),
        metric="log_likelihood",
        measure="exact_match",
        baseline="unigram",
        margin=0.5,
        bad={
            "messages: the last turn is not from the assistant": 1,
            "messages: roles out of order: expected user, found assistant": 1,
            "messages: roles out of order: expected assistant, found user": 1,
            "messages: a turn of the assistant is empty": 1,
            "messages: a turn without text in role and content": 1,
        },
        options={"data": "chat", "packing": True, "max_new_tokens": 8},
        changes={
            "preprocess": {"max_length": 48, "near_duplicate": 1},
            "train": {"epochs": 6, "evaluations_per_epoch": 1, "batch_size": 4, "learning_rate": 1.0e-2},
        },
    )
