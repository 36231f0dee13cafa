"""Four files as strangers bring them: tickets with a customer, tags joined by `;`, tagged tokens, and reviews with 1 to 5 stars.

Each topic has many words, of which a row has a few, and some labels are wrong: neither a baseline nor a model reaches 1.0.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

TOPICS = {
    "billing": "invoice payment refund charge price cost money receipt fee tax discount overcharged billed debit credit amount balance "
    "expense bank paid owed voucher coupon subscription renewal euros dollars cheque installment deposit",
    "delivery": "parcel courier shipment package late delayed tracking address driver warehouse shipping arrived lost mail postman "
    "doorstep express customs dispatch transit carrier depot freight pickup route van stuck undelivered box container",
    "hardware": "screen battery keyboard camera button broken cracked charger lens speaker fan hinge touchpad cable plug motor "
    "overheats display microphone socket scratches noise vibrates sensor chip memory disk printer scanner headset",
    "account": "password login username email profile locked verification security code reset signin credentials authentication "
    "settings register delete privacy permission access expired token session blocked logout nickname avatar identity "
    "captcha phone recovery",
    "software": "crash update install bug freeze error version download app program screenfreeze upgrade patch feature window menu "
    "plugin browser file export import sync backup format script tab cursor dialog restart lag",
}
FILLER = (
    "the my is please help with today again since new old very that it was and then this morning yesterday tried twice "
    "still nobody answers could you tell me what to do about our team thinks week now before after some"
)
STARS = {
    1: "terrible awful horrible disgusting worst useless dreadful garbage appalling unacceptable atrocious pathetic nightmare scam ruined",
    2: "disappointing poor bad weak mediocre annoying flawed cheap slow unpleasant inferior frustrating lacking dull unreliable",
    3: "okay average fine acceptable decent ordinary reasonable passable fair moderate tolerable adequate usual neutral standard",
    4: "good nice pleasant solid enjoyable helpful comfortable useful tasty friendly convenient satisfying lovely likeable neat",
    5: "excellent amazing perfect wonderful fantastic outstanding brilliant superb flawless incredible magnificent marvellous "
    "best delightful stunning",
}
FIRST = (
    "Anna Peter Maria John Lucy Omar Nina Karl Ivan Rosa Hugo Emma Noah Lena Paul Sara Tom Eva Max Ida Leo Mia Ben Zoe Jan "
    "Kim Ada Ugo Liv Tim"
)
LAST = (
    "Smith Weber Rossi Novak Silva Khan Larsen Dubois Moreau Fischer Tanaka Brown Keller Costa Jansen Berg Wolf Adler Conti "
    "Reyes Stone Hahn"
)
PLACES = (
    "Berlin Paris London Madrid Oslo Vienna Rome Prague Lisbon Dublin Athens Geneva Lyon Turin Porto Bergen Leeds Malaga "
    "Ghent Basel Kyoto Lima"
)
FIRMS = (
    "Siemens Nokia Bosch Renault Fiat Philips Volvo Airbus Nestle Unilever Ericsson Bayer Orange Shell Allianz Adidas Ikea "
    "Lego Heineken Zara"
)
_WRONG = 0.05  # share of rows with another label


def _text(rng: random.Random, words: list[str], filler: int = 6) -> str:
    chosen = [*words, *rng.sample(FILLER.split(), filler)]
    rng.shuffle(chosen)
    return " ".join(chosen)


def tickets(path: Path) -> Path:
    """Write 520 tickets of 180 customers: `message`, `category`, `customer`."""
    rng, lines = random.Random(11), ["message,category,customer"]
    for number in range(520):
        topic = rng.choice(list(TOPICS))
        words = [*rng.sample(TOPICS[topic].split(), 2), rng.choice(TOPICS[rng.choice(list(TOPICS))].split())]
        label = rng.choice(list(TOPICS)) if rng.random() < _WRONG else topic
        lines.append(f"{_text(rng, words)},{label},customer {number % 180}")
    return _write(path / "tickets.csv", lines)


def feedback_tags(path: Path) -> Path:
    """Write 560 texts with one to three tags: `feedback`, `tags`, e.g. `billing;delivery`."""
    rng, lines = random.Random(12), ["feedback,tags"]
    for _ in range(560):
        topics = sorted(rng.sample(list(TOPICS), rng.choice([1, 1, 2, 2, 3])))
        words = [word for topic in topics for word in rng.sample(TOPICS[topic].split(), 2)]
        labels = topics[1:] if len(topics) > 1 and rng.random() < _WRONG else topics
        lines.append(f"{_text(rng, words, 5)},{';'.join(labels)}")
    return _write(path / "feedback_tags.csv", lines)


def tagged_tokens(path: Path, tags: str = "ner_tags") -> Path:
    """Write 450 sentences: `tokens` and lists of tags under the name `tags`."""
    rng, lines = random.Random(13), []
    for _ in range(450):
        parts = [
            [(rng.choice(FIRST.split()), "B-PER"), (rng.choice(LAST.split()), "I-PER"), *_plain(rng.choice(["said", "works", "met us"]))],
            [*_plain(rng.choice(["in", "near", "from"])), (rng.choice(PLACES.split()), "B-LOC")],
            [*_plain(rng.choice(["for", "at", "with"])), (rng.choice(FIRMS.split()), "B-ORG")],
            _plain(" ".join(rng.sample(FILLER.split(), 3))),
        ]
        rng.shuffle(parts)
        pairs = [pair for part in parts[: rng.choice([2, 3, 4])] for pair in part]
        lines.append(json.dumps({"tokens": [word for word, _ in pairs], tags: [tag for _, tag in pairs]}))
    return _write(path / "ner.jsonl", lines)


def reviews(path: Path) -> Path:
    """Write 600 reviews: `review`, `stars` from 1 to 5, and `verified`, which says nothing about them."""
    rng, lines = random.Random(14), ["review,stars,verified"]
    for _ in range(600):
        stars = rng.choice([1, 2, 3, 4, 5])
        near = min(5, max(1, stars + rng.choice([-1, 0, 0, 1])))
        words = [*rng.sample(STARS[stars].split(), 2), rng.choice(STARS[near].split())]
        lines.append(f"{_text(rng, words)},{stars},{rng.choice(['yes', 'no'])}")
    return _write(path / "reviews.csv", lines)


FILES: dict[str, Callable[[Path], Path]] = {"tickets": tickets, "feedback_tags": feedback_tags, "ner": tagged_tokens, "reviews": reviews}


def _plain(words: str) -> list[tuple[str, str]]:
    return [(word, "O") for word in words.split()]


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path
