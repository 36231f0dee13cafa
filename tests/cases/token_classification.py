"""Sentences with people and cities, tagged by a conditional random field."""

import json
import random
from pathlib import Path

import pandas as pd

from tests.line import Case
from tests.tiny import make_tiny_base

FIRST, LAST, CITIES = ["ada", "alan", "grace", "kurt"], ["lovelace", "turing", "hopper", "godel"], ["london", "paris", "vienna"]
FILLER = ["met", "in", "the", "old", "town", "of", "with", "and", "left", "for", "may", "he", "she", "saw"]


def make(folder: Path) -> Case:
    draw, rows = random.Random(4), []
    for number in range(240):
        person, city = [draw.choice(FIRST), draw.choice(LAST)], [draw.choice(CITIES)]
        filler = draw.sample(FILLER, 4)
        tokens = [*filler[:2], *person, *filler[2:], *city]
        tags = ["O", "O", "B-PER", "I-PER", "O", "O", "B-LOC"]
        rows.append({"id": f"r{number:03d}", "tokens": json.dumps(tokens), "tags": json.dumps(tags)})
    for tags in ('["B-PER"]', '["B-PER", "O", "O"]', '["O", "I-PER"]', '["B-ORG", "O"]'):
        rows.append({"id": f"bad {tags}", "tokens": '["ada", "left"]', "tags": tags})
    base = make_tiny_base(folder, [*FIRST, *LAST, *CITIES, *FILLER])
    return Case(
        *("token_classification", pd.DataFrame(rows), base),
        metric="entity_f1",
        measure="entity_f1",
        baseline="frequent_tag",
        bad={
            "the number of tags is not the number of tokens": 2,
            "an I- tag follows no B- or I- of its type (scheme BIO)": 1,
            "type 'ORG' is not in task_options.types": 1,
        },
        options={"head": "crf", "types": ["PER", "LOC"]},
    )
