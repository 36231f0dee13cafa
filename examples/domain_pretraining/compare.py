"""Compare the classifier from the adapted base with the one from the pretrained encoder, on their common test rows.

Reads the predictions of classify.yaml's and classify_alone.yaml's workspaces; prints each metric's difference with its 95 % interval,
paired row by row and by groups, as the gates measure it.

    python examples/domain_pretraining/compare.py [--json]
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from components.artifacts.predictions import Predictions  # noqa: E402
from components.evaluation.metric_set import metric_set  # noqa: E402
from flows.project.params import read_params  # noqa: E402
from flows.project.workspace import open_workspace  # noqa: E402


def main() -> None:
    """Print a line for each metric, or with --json a list with an object for each."""
    found = compared()
    if "--json" in sys.argv[1:]:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        low, high = one["difference_interval"]
        doubt = f"; {one['doubt']}" if one["doubt"] else ""
        print(
            f"{one['metric']} {one['value']:.3f} adapted, {one['baseline_value']:.3f} alone: "
            f"{one['difference']:+.3f} ({low:+.3f} to {high:+.3f}){doubt}"
        )


def compared() -> list[dict[str, Any]]:
    """Return each metric of both, and the difference, under the names that `python -m bench tasks` has."""
    files = [HERE / name for name in ("classify.yaml", "classify_alone.yaml")]
    adapted, alone = (Predictions.read(open_workspace(file).predictions / "candidate.parquet") for file in files)
    if adapted.ids.tolist() != alone.ids.tolist():
        raise SystemExit("the two classifiers have different test rows: run both on the same labelled.csv")
    params = read_params(files[0])
    measured = metric_set(params.made_task, adapted, params.evaluate.min_class_units)
    found = []
    for metric in measured.metrics:
        gain, own = measured.difference(metric, adapted, alone, 0.95), measured.score(metric, adapted, 0.95)
        found.append(
            {
                "task": params.task,
                "metric": metric,
                "value": own.value,
                "interval": [own.low, own.high],
                "baseline": "alone",
                "baseline_value": measured.score(metric, alone, 0.95).value,
                "difference": gain.value,
                "difference_interval": [gain.low, gain.high],
                "doubt": gain.doubt,
                "beats_it": gain.low > 0 and not gain.doubt,
                "rows": len(adapted.ids),
                "groups": measured.units.count,
            }
        )
    return found


if __name__ == "__main__":
    main()
