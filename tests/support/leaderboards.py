"""Candidates and leaderboards of automatic searches."""

from typing import Any

from components.artifacts.tuning_result import Candidate, Leaderboard


def candidate(number: int, name: str, score: float | None = None, **changes: Any) -> Candidate:
    """Return a complete candidate with the interval `score` ± 0.05, which cost 30 seconds."""
    interval = (None, None) if score is None else (round(score - 0.05, 3), round(score + 0.05, 3))
    values: dict[str, Any] = {
        "number": number, "name": name, "base": "model", "method": name.split(",")[0], "settings": {"learning_rate": 3e-4, "epochs": 6.0},
        "task_options": {"pooling": "mean"}, "state": "complete", "reason": "", "score": score, "low": interval[0], "high": interval[1],
        "holdouts": 1, "seconds": 30.0, "share": 0.1, "ended_at": 30.0 * (number + 1), "first_score": score,
    }  # fmt: skip
    return Candidate.model_validate(values | changes)


def leaderboard(*candidates: Candidate, **changes: Any) -> Leaderboard:
    """Return a leaderboard with the given candidates, or with one of each state and the second as winner."""
    usual = (
        candidate(2, "full, mean pooling, 3e-4, 6 epochs", 0.551, seconds=180.0, share=0.6, holdouts=3, ended_at=250.0, first_score=0.56),
        candidate(1, "lora, rank 16", 0.548, winner=True, reason="0.003 below the best, which is within its error, at a third of its cost"),
        candidate(0, "probe", 0.519, seconds=4.0, share=0.01, ended_at=4.0),
        candidate(3, "freeze, 2 layers", 0.31, state="stopped", reason="macro_f1 0.310 is below the median after 200 steps"),
        candidate(4, "full, batch 64", state="failed", reason="ran out of memory with a batch of 1"),
        candidate(5, "full, class weights", state="skipped", reason="needs 9 minutes, 1 is left", seconds=0.0, share=0.0, ended_at=300.0),
    )
    values: dict[str, Any] = {
        "metric": "macro_f1", "minutes": 5.0, "seconds": 290.0, "validation_rows": 86, "candidates": candidates or usual,
        "optimism": (0.012, -0.004, 0.029), "notes": ("full fine-tuning needs about 9 more minutes",),
        "plan": "First the probe, then LoRA, then full fine-tuning of the best",
    }  # fmt: skip
    return Leaderboard.model_validate(values | changes)
