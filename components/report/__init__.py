"""The page that a busy person decides from and an auditor reads for an hour: one self-contained `index.html`.

Reads the artifacts of a workspace (facts.py) and writes one file: no script, no font and no picture from elsewhere. All text from
data is escaped, by the template and by svg.py alike; the page forbids scripts to the browser as well.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from components.artifacts.lineage import Lineage
from components.artifacts.verdict import Verdict
from components.core.atomic import write_bytes
from components.report.card import card_page, card_text
from components.report.facts import ChampionFacts, Run, read_facts
from components.report.page import render

__all__ = ["CARD", "CARD_PAGE", "ChampionFacts", "shows", "write_card", "write_report"]

CARD, CARD_PAGE = "MODEL_CARD.md", "MODEL_CARD.html"


def shows(page: Path, verdict: Verdict, version: str) -> bool:
    """Say whether the page shows this verdict on this version already."""
    try:
        return f'content="{verdict.key} {version}"' in page.read_text(encoding="utf-8")
    except OSError:
        return False


def write_report(
    workspace: Path,
    out: Path,
    *,
    lineage: Lineage,
    verdict: Verdict,
    version: str | None = None,
    champion: ChampionFacts | None = None,
    seconds: Mapping[str, float] | None = None,
    made_at: datetime | None = None,
    params: Mapping[str, object] | None = None,
) -> Path:
    """Write the report on the candidate in `workspace` to the file `out`, by rename, and return its path.

    Args:
        workspace: the folder that holds params.yaml and dvc.yaml.
        out: the HTML file, as reports/index.html.
        lineage: where the candidate came from.
        verdict: what the gates decided.
        version: the registered version of the candidate; None when it is not registered.
        champion: the model in production and its scores on the same rows; None when there is none.
        seconds: wall clock of each step, in the order in which they ran.
        made_at: when the report was made, UTC; left out of the page when None.
        params: the parameters of the candidate as params.yaml says them, to be held against those recorded with the champion.

    Raises:
        NotThere: the candidate was not evaluated. Whatever else is missing is named on the page as missing.
    """
    run = Run(lineage, verdict, version, champion, seconds or {}, made_at, params or {})
    return _put(out, render(read_facts(workspace, run)))


def write_card(
    workspace: Path,
    folder: Path,
    *,
    lineage: Lineage,
    verdict: Verdict,
    version: str | None = None,
    champion: ChampionFacts | None = None,
    made_at: datetime | None = None,
) -> tuple[Path, Path]:
    """Write the model card of the candidate in `workspace` into `folder`, and return the paths of the Markdown and of the HTML file.

    The arguments are those of `write_report`; the same facts give the same bytes.

    Raises:
        NotThere: the candidate was not evaluated. Whatever else is missing is called unknown on the card.
    """
    facts = read_facts(workspace, Run(lineage, verdict, version, champion, made_at=made_at))
    text = card_text(facts)
    return _put(folder / CARD, text), _put(folder / CARD_PAGE, card_page(facts, text))


def _put(out: Path, text: str) -> Path:
    """Write a file by rename, so that no reader sees half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode(errors="replace"))
    return out
