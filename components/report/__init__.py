"""Write the report page and the model card of a candidate, each as one self-contained HTML file.

Reads the artifacts of a workspace (facts.py). The files contain no script and no external font or image. Text from data is escaped, by
the templates and by svg.py; the page also forbids scripts by its content security policy.
"""

from pathlib import Path

from components.artifacts.verdict import Verdict
from components.core.atomic import write_bytes
from components.report.card import card_page, card_text
from components.report.facts import ChampionFacts, Run, read_facts
from components.report.page import render, render_standing
from components.report.standing import Standing, next_step

__all__ = [
    "CARD",
    "CARD_PAGE",
    "ChampionFacts",
    "Run",
    "Standing",
    "next_step",
    "shows",
    "update_standing",
    "write_card",
    "write_report",
]

CARD, CARD_PAGE = "MODEL_CARD.md", "MODEL_CARD.html"


def shows(page: Path, key: str, version: str) -> bool:
    """Return whether the page already shows the verdict with this key on this version."""
    try:
        return f'content="{key} {version}"' in page.read_text(encoding="utf-8")
    except OSError:
        return False


def update_standing(page: Path, model: str, verdict: Verdict, version: str, standing: Standing) -> bool:
    """Write what became of the verdict on a version to the page; return whether the page shows this verdict."""
    if not shows(page, verdict.key, version):
        return False
    before, found, rest = page.read_text(encoding="utf-8").partition('<div class="standing">')
    if found:
        _write(page, f"{before}{render_standing(model, verdict, version, standing)}{rest.partition('</div>')[2]}")
    return True


def write_report(workspace: Path, out: Path, run: Run) -> Path:
    """Write the report on the candidate in `workspace` to the HTML file `out` atomically, and return its path.

    Raises:
        NotFound: the candidate was not evaluated. The page reports other missing artifacts as missing.
    """
    return _write(out, render(read_facts(workspace, run)))


def write_card(workspace: Path, folder: Path, run: Run) -> tuple[Path, Path]:
    """Write the model card of the candidate in `workspace` into `folder`, and return the paths of the Markdown and of the HTML file.

    The same facts give the same bytes.

    Raises:
        NotFound: the candidate was not evaluated. The card reports other missing facts as unknown.
    """
    facts = read_facts(workspace, run)
    text = card_text(facts)
    return _write(folder / CARD, text), _write(folder / CARD_PAGE, card_page(facts, text))


def _write(out: Path, text: str) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode(errors="replace"))
    return out
