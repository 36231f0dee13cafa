"""What became of a verdict, and the next step: shown on the page, in `verdict.md` and by the command line."""

from dataclasses import dataclass
from datetime import datetime
from shlex import quote

from components.artifacts.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Standing:
    """The champion now, and until when a run waits for an approval; `run` is the beginning of its id."""

    champion: str | None = None
    run: str = ""
    waits_until: datetime | None = None


def meaning(verdict: Verdict, version: str | None, standing: Standing) -> str:
    """Return what the verdict means for the champion, in one sentence."""
    first = verdict.champion is None
    if standing.champion is not None and standing.champion == version:
        return f"Version {version} is the {'first ' if first else ''}champion."
    if standing.waits_until is not None:
        return f"Version {version} waits for an approval until {standing.waits_until:%Y-%m-%d %H:%M} UTC."
    if verdict.outcome is Outcome.PASS:
        return "The candidate may become the first champion." if first else "The candidate may replace the champion."
    if verdict.outcome is Outcome.FAIL:
        return "The candidate is not good enough to become champion." if first else "The champion stays."
    return "The evidence is inconclusive; a person must decide."


def next_step(model: str, version: str, outcome: Outcome, standing: Standing) -> str:
    """Return the commands that fit the state of a judged version."""
    name, why = quote(model), '--why "…"'
    if standing.champion == version:
        return f'`retune predict --model {name} "…"` uses it; `retune history {name}` lists the champions before it'
    if standing.waits_until is not None:
        approve, reject = (f"`retune {command} {standing.run} {why}`" for command in ("approve", "reject"))
        return f"until {standing.waits_until:%Y-%m-%d %H:%M} UTC, {approve} makes version {version} the champion, and {reject} refuses it"
    if outcome is Outcome.FAIL:
        force = f"`retune promote {name} {version} --force {why}` promotes it all the same"
        return f"`retune why {name} {version}` shows the evidence; `retune run --model {name}` trains on changed data or settings; {force}"
    if outcome is Outcome.PASS:
        return f"`retune promote {name} {version}` makes it the champion; `retune history {name}` shows earlier decisions"
    return f"`retune history {name}` shows the decision about it; `retune judge --again --model {name}` judges again"
