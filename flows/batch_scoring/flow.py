"""The story of a batch scoring, as a deployment runs it on a schedule.

Prefect is imported here at once: only the process that runs it reads this file. `retune score` does the same without Prefect.
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
for room in ("components", "flows"):  # whose lines Prefect shows on the run's page
    logging.getLogger(room).setLevel(logging.INFO)

Input = Annotated[str, Field(min_length=1, description="a file, a glob, a folder or sql://NAME/TABLE")]
Output = Annotated[str, Field(min_length=1, description="a folder or sql://NAME/TABLE; {date} and {time} are those of the schedule, UTC")]
Model = Annotated[str, Field(description="NAME@ALIAS or NAME/VERSION; empty: the champion of this project's model")]
Columns = Annotated[dict[str, str] | None, Field(description="the column of an input that is not called as the input is")]
Rows = Annotated[int, Field(ge=1, description="rows of a part")]


@flow(name="score", persist_result=False)
def score(
    input: Input,
    output: Output,
    model: Model = "",
    columns: Columns = None,
    on_bad_row: OnBadRow = "error",
    rows_per_part: Rows = 10_000,
) -> str:
    """Let a version answer every row of `input`, and write the rows with the answers into `output`.

    Run again for the same moment it goes on where it was ended.
    """
    place = scoring.expand(output, flow_run.scheduled_start_time or datetime.now(UTC))
    settings = ScoringSettings(rows_per_part, on_bad_row, columns=columns or {})
    with prefect_adapter.joined():
        manifest = scoring.score(open_workspace(), input, place, model, settings)
    return f"{place}: {manifest.scored} of {manifest.rows} rows scored by {manifest.model_uri}, {manifest.quarantined} in quarantine"
