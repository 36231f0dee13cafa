"""`served.json`: what MLflow's scoring server answered for a registered version."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from components.artifacts.base import Artifact


class ServedAnswer(BaseModel):
    """The server's answer to the test row `id`; `probabilities` are by label, and empty where the task has no classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    label: str
    probabilities: dict[str, float] = Field(default_factory=dict)


class ServedAnswers(Artifact):
    """What a version answered behind the scoring server, and how it took requests that are none.

    `asked` is the number of test rows sent, `answers` those that came back, in the order of asking. `refused` says of each good request
    that was not answered in full how the server answered instead; `malformed` is the status of each bad request by its name, None where
    the connection broke. `seconds` is the time until the server was ready. `fault` says why it did not come up at all; `outside` that
    the reason lies outside the version (no port, no memory, no time), so that another attempt may go better.
    """

    FILE: ClassVar[str] = "served.json"

    version: str
    asked: int = 0
    answers: tuple[ServedAnswer, ...] = ()
    refused: tuple[str, ...] = ()
    malformed: dict[str, int | None] = Field(default_factory=dict)
    seconds: float = 0.0
    fault: str | None = None
    outside: bool = False
