"""Plain English: phrases that readers did not understand do not come back into code, messages or documents."""

import re
import subprocess

import pytest

from tests.support.project import ROOT

# phrase (a regular expression): what to write
BANNED = {
    r"held against": "compared with",
    r"gone on with|goes on with|go on with": "continued, resumed",
    r"\banew\b": "again, from scratch",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\b(is|are|was|were) told\b": "is reported, is logged",
    r"\btold of\b": "notified of",
    r"\blies? in\b": "is in",
    r"\bstands? in\b": "is in, is set in",
    r"\bhangs? on\b": "depends on",
    r"\bwhom\b": "name the thing",
    r"cannot be had": "is not available",
    r"\bat hand\b": "available",
    r"out of reach": "unreachable",
    r"where there (is|are) none": "if there is none",
    r"others? than\b": "differs from",
    r"otherwise than": "differs from",
    r"as it stands|as they stand": "unchanged",
    r"who has it|who had it": "the holder",
    r"what is there\b": "name the thing",
    r"\bforetold?\b|\bforesee": "predict",
    r"\bfurnish": "prepare, sync",
    r"\bas it ships\b|\bas they ship\b": "pretrained, unmodified",
    r"\bby hand\b": "manually",
    r"\b(is|are) no [a-z]+ (that|which)\b": "does not exist, is not",
    r"\basunder\b|\btorn apart\b": "separated",
    r"knows? nothing of": "does not depend on",
    r"nobody knows": "is unknown",
    r"\bone line a |\ba line a ": "one line per",
    r"\bheed": "handle",
    r"\bstory of\b|\bthe same story\b|\bthe whole line\b": "pipeline, run",
    r"could not buy": "are not enough for",
    r"stands? already": "already exists",
}


def files() -> list[str]:
    kept = (".py", ".md", ".yaml", ".yml", ".j2", ".sh", ".toml", ".cff")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if name.endswith(kept) and name != "tests/test_language.py"]


@pytest.mark.slow
@pytest.mark.parametrize("phrase", BANNED)
def test_phrase_is_not_used(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in files()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == [], f"write {BANNED[phrase]!r} instead"
