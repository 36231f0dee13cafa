"""Sentences with people and cities of the same names; the word before a name determines its type."""

import json
import random
from pathlib import Path

import pandas as pd

from tests.support.pipeline import Case
from tests.support.tiny import make_tiny_base

NAMES = ["washington", "lincoln", "jackson", "austin"]
FILLER = ["met", "the", "old", "town", "of", "and", "left", "for", "may", "he", "she", "saw"]


def make(folder: Path) -> Case:
    draw, rows = random.Random(4), []
    for number in range(160):
        person, city = (["mr", *draw.sample(NAMES, 2)], ["O", "B-PER", "I-PER"]), (["in", draw.choice(NAMES)], ["O", "B-LOC"])
        parts = [person, city] if draw.random() < 0.5 else [city, person]
        filler = draw.sample(FILLER, 4)
        tokens = [*filler[:2], *parts[0][0], *filler[2:], *parts[1][0]]
        tags = ["O", "O", *parts[0][1], "O", "O", *parts[1][1]]
        rows.append({"id": f"r{number:03d}", "tokens": json.dumps(tokens), "tags": json.dumps(tags)})
    for tags in ('["B-PER"]', '["B-PER", "O", "O"]', '["O", "I-PER"]', '["B-ORG", "O"]'):
        rows.append({"id": f"bad {tags}", "tokens": '["ada", "left"]', "tags": tags})
    return Case(
        *("token_classification", pd.DataFrame(rows), make_tiny_base(folder, ["mr", "in", *NAMES, *FILLER])),
        metric="entity_f1",
        measure="entity_f1",
        baseline="frequent_tag",
        margin=0.15,
        bad={
            "the number of tags differs from the number of tokens": 2,
            "an I- tag follows no B- or I- of its type (scheme BIO)": 1,
            "type 'ORG' is not in task_options.types": 1,
        },
        options={"head": "crf", "types": ["PER", "LOC"]},
        changes={"train": {"epochs": 3, "evaluations_per_epoch": 1}},
    )
