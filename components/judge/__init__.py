"""Judging a candidate: the gates' results, corrected for multiple tests, become one verdict; the self-test checks the gates first."""

from components.judge.verdict import check_metrics, decide, judge, verdict_key

__all__ = ["check_metrics", "decide", "judge", "verdict_key"]
