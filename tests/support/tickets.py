"""Support tickets of three classes whose words decide the label: data that a two-layer model learns in seconds."""

import random

import pandas as pd

TOPICS = {
    "billing": ["invoice", "payment", "refund", "charge", "card", "price", "cost", "money", "bill", "account"],
    "network": ["router", "cable", "signal", "wifi", "slow", "offline", "connection", "speed", "modem", "outage"],
    "device": ["screen", "battery", "keyboard", "camera", "button", "broken", "cracked", "charger", "case", "lens"],
}
FILLER = ["the", "my", "is", "please", "help", "with", "today", "again", "since", "new", "old", "very", "customer", "says", "that", "it"]
WORDS = sorted({word for topic in TOPICS.values() for word in topic} | set(FILLER))


def make_tickets() -> pd.DataFrame:
    """Return 240 tickets in 80 groups of three; every cell is text, as in a snapshot."""
    rng = random.Random(1)
    rows = []
    for number in range(240):
        label = sorted(TOPICS)[(number // 3) % 3]
        words = rng.sample(TOPICS[label], 3) + rng.sample(FILLER, 5)
        rng.shuffle(words)
        rows.append({"id": f"t{number:03d}", "group": f"g{number // 3:02d}", "text": " ".join(words), "label": label})
    return pd.DataFrame(rows)
