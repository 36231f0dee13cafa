"""The Prefect flow of a batch scoring, for scheduled deployments.

This file imports Prefect at the top, because only Prefect's own processes import it. `retune score` does the same without Prefect.
"""

import logging
from datetime import UTC, datetime
from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from components.core.process import quiet_environment
from components.serving.batch import OnBadRow, ScoringSettings
from flows.batch_scoring import scoring
from flows.orchestrator import prefect_adapter
from flows.project.workspace import open_workspace

quiet_environment()
for package in ("components", "flows"):  # Prefect shows their log lines on the run's page
    logging.getLogger(package).setLevel(logging.INFO)

Input = Annotated[str, Field(min_length=1, description="a file, a glob, a folder or sql://NAME/TABLE")]
Output = Annotated[str, Field(min_length=1, description="a folder or sql://NAME/TABLE; {date} and {time} are the scheduled time in UTC")]
Model = Annotated[str, Field(description="NAME@ALIAS or NAME/VERSION; if empty, the champion of this project's model")]
Columns = Annotated[dict[str, str] | None, Field(description="input: column, for columns with another name than their input")]
Rows = Annotated[int, Field(ge=1, description="rows per part")]


@flow(name="score", persist_result=False)
def score(
    input: Input,
    output: Output,
    model: Model = "",
    columns: Columns = None,
    on_bad_row: OnBadRow = "error",
    rows_per_part: Rows = 10_000,
) -> str:
    """Answer every row of `input` with a version, and write the rows with the answers to `output`.

    A second run for the same scheduled time resumes an interrupted one.
    """
    target = scoring.expand(output, flow_run.scheduled_start_time or datetime.now(UTC))
    settings = ScoringSettings(rows_per_part, on_bad_row, columns=columns or {})
    with prefect_adapter.joined():
        manifest = scoring.score(open_workspace(), input, target, model, settings)
    return f"{target}: {manifest.scored} of {manifest.rows} rows scored by {manifest.model_uri}, {manifest.quarantined} in quarantine"
