"""An example verdict with required, blocking and informational gates, with hypotheses, notes and tables."""

from typing import Any

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role, Verdict

CHAPTERS = (
    "Certain infectious and parasitic diseases",
    "Neoplasms",
    "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism",
    "Endocrine, nutritional and metabolic diseases",
    "Mental, behavioral and neurodevelopmental disorders",
    "Diseases of the nervous system",
    "Diseases of the eye and adnexa",
    "Diseases of the ear and mastoid process",
    "Diseases of the circulatory system",
    "Diseases of the respiratory system",
    "Diseases of the digestive system",
    "Diseases of the skin and subcutaneous tissue",
    "Diseases of the musculoskeletal system and connective tissue",
    "Diseases of the genitourinary system",
    "Pregnancy, childbirth and the puerperium",
    "Certain conditions originating in the perinatal period",
    "Congenital malformations",
    "Symptoms, signs and abnormal findings",
    "Injury, poisoning and other external causes",
    "External causes of morbidity",
    "Factors influencing health status",
    "texts of 21 words and more",
)
NEEDED = "with 6,120 test rows (now 2,179) an equal model passes in 80 % of cases"


def gate(name: str, reason: str, outcome: Outcome = Outcome.PASS, role: Role = Role.REQUIRED, **fields: object) -> GateResult:
    """Return the result of one gate."""
    return GateResult.model_validate({"gate": name, "outcome": outcome, "reason": reason, "role": role} | fields)


def interval(metric: str, estimate: float, low: float, high: float, n: int | None = 412) -> dict[str, Any]:
    """Return the fields of a measured metric, which gate results and hypotheses share."""
    return {"metric": metric, "estimate": estimate, "low": low, "high": high, "n": n}


def difference(
    name: str, estimate: float, half: float, p: float, adjusted: float | None, metric: str = "accuracy", n: int = 180
) -> Hypothesis:
    """Return the hypothesis that the candidate is worse than champion version 3; its interval is `estimate` ± `half`."""
    return Hypothesis(
        name=name,
        says=f"{name}: {metric} is worse than that of champion version 3 by {-estimate:.3f}",
        p=p,
        adjusted=adjusted,
        rejected=adjusted is not None and adjusted <= 0.05,
        **interval(metric, estimate, estimate - half, estimate + half, n),
    )


def _required(*, undecided: bool = False) -> list[GateResult]:
    estimate, low, high = (-0.006, -0.024, 0.012) if undecided else (0.011, -0.004, 0.026)
    floor = interval("macro_f1", 0.757, 0.719, 0.795)
    worse = difference("accuracy worse than champion version 3", estimate, 0.018, 0.21, 1.0, n=412)
    state = "inconclusive for" if undecided else "within"
    needed = f"; {NEEDED}" if undecided else ""
    return [
        gate(
            "floor",
            "macro_f1 0.757 reaches gates.floor.at_least 0.65 (98 % interval 0.719 to 0.795)",
            **floor,
            threshold=0.65,
            change="PASS with a floor of 0.719 or less",
            method="linearised, clustered by group; 98 % interval, each end a one-sided 1 % bound",
            hypotheses=(Hypothesis(name="below the floor", says="below", p=1.0, adjusted=1.0, **floor),),
        ),
        gate(
            "baseline",
            "macro_f1 difference +0.055 is above gates.baseline.margin 0 over tfidf (98 % interval +0.024 to +0.087)",
            **interval("macro_f1", 0.055, 0.024, 0.087),
            threshold=0.0,
            change="PASS with a margin below +0.024",
        ),
        gate(
            "champion",
            f"accuracy difference {estimate:+.3f} to champion version 3 is {state} gates.champion.margin 0.02 "
            f"(98 % interval {low:+.3f} to {high:+.3f}){needed}",
            Outcome.INCONCLUSIVE if undecided else Outcome.PASS,
            **interval("accuracy", estimate, low, high),
            threshold=-0.02,
            change=f"PASS with a margin above {-low:.3f}, or: {NEEDED}",
            method="group jackknife, t(411); 98 % interval",
            hypotheses=(worse, difference("macro_f1 worse than champion version 3", 0.004, 0.031, 0.6, 1.0, "macro_f1", 412)),
            notes=(
                "minimum detectable effect: 0.027 (80 % power, one-sided 1.00%)",
                "McNemar: only the candidate is correct on 61 rows, only the other model on 37, mid-p 0.0159",
                "cross-check, percentile bootstrap: -0.003 to +0.027",
            ),
        ),
        gate(
            "best_champion",
            "accuracy difference +0.007 to version 1, the best champion so far, is within gates.best_champion.margin 0.02",
            **interval("accuracy", 0.007, -0.011, 0.025),
            threshold=-0.02,
        ),
        gate(
            "test_budget",
            "candidate 2 of gates.test_budget.at_most 5 on this test set, each decided at 1.00%",
            change="INCONCLUSIVE after 3 more candidates",
        ),
        gate(
            "servability",
            "version 4 served 256 of 256 rows as evaluated (largest gap 2.4e-07, tolerance 1e-05) and refused 6 of 6 requests",
            tables=(
                ReportTable(
                    title="Malformed requests",
                    columns=("request", "status", "refused"),
                    rows=(("no body", 400, True), ("a number for a text", 400, True), ("<script>alert(1)</script>", 415, True)),
                ),
            ),
        ),
    ]


def _blocking(*, failed: bool = False) -> list[GateResult]:
    """Return the results of the blocking gates; `failed` by one slice."""
    slices = [
        difference(f"label is {name}", 0.02 - 0.006 * at, 0.05 + 0.004 * at, 0.9 - 0.04 * at, 1.0) for at, name in enumerate(CHAPTERS)
    ]
    worst = difference(f"label is {CHAPTERS[2]}", -0.141, 0.078, 0.0004, 0.011, n=131)
    latency = interval("p95_ms", 41.0, 38.0, 46.0, 20)
    over_budget = "p95 latency 84 ms is over gates.cost.p95_ms 60"
    hidden = tuple(
        (f"row {at}", f"Other specified disorders of the {name.lower()}", 0.91 - at / 100) for at, name in enumerate(CHAPTERS * 3)
    )
    return [
        gate(
            "slices",
            f"{worst.says}, p 0.011 after Holm's correction" if failed else "no slice of 22 is worse than the champion",
            Outcome.FAIL if failed else Outcome.PASS,
            Role.BLOCKING,
            **(interval("accuracy", -0.141, -0.219, -0.063, 131) if failed else interval("accuracy", -0.106, -0.24, 0.03, None)),
            threshold=0.0,
            hypotheses=(*slices, *[worst] * failed),
            change="PASS when the slice is no worse; more training rows of it, or gates.slices.role: informational",
            tables=(
                ReportTable(
                    title="Too small to judge (under 100 rows)",
                    columns=("slice", "rows", "candidate", "champion", "difference"),
                    rows=(("kind is inclusion, label is Neoplasms", 61, 0.803, 0.82, -0.017), ("rare words", 12, None, None, None)),
                ),
            ),
        ),
        gate(
            "calibration",
            "Brier 0.131, difference -0.004 to champion version 3 (95 % interval -0.011 to +0.003)",
            role=Role.BLOCKING,
            **interval("brier", -0.004, -0.011, 0.003),
            threshold=0.0,
        ),
        gate(
            "leakage",
            "no test row is a training row; 3 near-duplicates",
            role=Role.BLOCKING,
            tables=(ReportTable(title="Nearest pairs", columns=("row", "text", "similarity"), rows=hidden),),
        ),
        gate(
            "cost",
            "p95 latency 41.0 ms is within gates.cost.p95_ms 60",
            role=Role.BLOCKING,
            **latency,
            threshold=60.0,
            hypotheses=(Hypothesis(name="p95 latency over budget", says=over_budget, p=0.4, adjusted=1.0, **latency),),
            notes=("peak memory 412 MiB, champion 409 MiB",),
        ),
        gate(
            "behaviour",
            "not enough cases: 12 of 100",
            Outcome.INCONCLUSIVE,
            Role.BLOCKING,
            **interval("failure_rate", 0.083, 0.015, 0.35, 12),
            threshold=0.05,
            change="88 more cases in the behaviour file",
        ),
        gate("forgetting", "not measured: there is no earlier test set", Outcome.INCONCLUSIVE, Role.BLOCKING),
    ]


def _informational() -> list[GateResult]:
    gap = difference("sex is F against M", -0.018, 0.03, 0.12, None)
    without_numbers = dict.fromkeys(("estimate", "low", "high", "metric", "n"))
    return [
        gate(
            "house_rule_42",
            "a gate that the page does not know",
            role=Role.INFORMATIONAL,
            **interval("words_per_answer", 1204.0, 1100.0, 1310.0, None),
            threshold=1500.0,
            hypotheses=(gap, gap.model_copy(update={"name": "no numbers"} | without_numbers)),
        ),
    ]


def judged(outcome: Outcome = Outcome.PASS) -> Verdict:
    """Return a verdict with gates of all roles; FAIL by one slice of 23, INCONCLUSIVE by the champion gate."""
    gates = (*_required(undecided=outcome is Outcome.INCONCLUSIVE), *_blocking(failed=outcome is Outcome.FAIL), *_informational())
    deciding = [result for result in gates if result.outcome is outcome and (result.role is Role.REQUIRED or outcome is Outcome.FAIL)]
    passed = "All 6 required gates pass; 4 of 6 blocking gates pass. Inconclusive: behaviour, forgetting."
    return Verdict(
        key="k" * 64,
        candidate="c" * 64,
        champion="3",
        anchor="1",
        test_digest="t" * 64,
        outcome=outcome,
        gates=gates,
        level=0.01,
        look=2,
        reason=passed if outcome is Outcome.PASS else " ".join(f"{result.gate}: {result.reason}." for result in deciding),
        off=("fairness",),
        tested=(
            "44 correct answers flipped: champion FAIL",
            "answers shuffled over the rows: champion FAIL",
            "both models swapped: every interval mirrored, champion PASS",
            "the champion against itself: champion PASS, as computed for 2,179 test units",
            "44 errors corrected: champion PASS",
        ),
    )
