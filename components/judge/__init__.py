"""Combine the gates' results, corrected for multiple testing, into a verdict; the self-test checks the gates first."""

from components.judge.verdict import check_metrics, decide, judge, verdict_key

__all__ = ["check_metrics", "decide", "judge", "verdict_key"]
