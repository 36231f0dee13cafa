"""Hold the classifier from the adapted base against the one from the encoder as it ships, on the test rows that both were asked.

Reads the predictions of classify.yaml's and classify_alone.yaml's workspaces; prints each metric's difference with its 95 % interval,
paired row by row and by groups, as the gates measure it.

    python examples/domain_pretraining/compare.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from components.artifacts.predictions import Predictions  # noqa: E402
from components.yardstick import yardstick  # noqa: E402
from flows.params import read_params  # noqa: E402
from flows.workspace import open_workspace  # noqa: E402


def main() -> None:
    """Print a line for each metric."""
    files = [HERE / name for name in ("classify.yaml", "classify_alone.yaml")]
    adapted, alone = (Predictions.read(open_workspace(file).predictions / "candidate.parquet") for file in files)
    if adapted.ids.tolist() != alone.ids.tolist():
        raise SystemExit("the two were not asked the same rows: run both on the same labelled.csv")
    params = read_params(files[0])
    measured = yardstick(params.made_task, adapted, params.evaluate.min_class_units)
    for metric in measured.metrics:
        gain = measured.difference(metric, adapted, alone, 0.95)
        values = [measured.score(metric, one, 0.95).value for one in (adapted, alone)]
        doubt = f"; {gain.doubt}" if gain.doubt else ""
        print(f"{metric} {values[0]:.3f} adapted, {values[1]:.3f} alone: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}){doubt}")


if __name__ == "__main__":
    main()
