"""`served.json`: answers of MLflow's scoring server for a registered version."""

from pydantic import Field

from components.artifacts.base import Artifact, Record


class ServedAnswer(Record):
    """The server's answer to the test row `id`; `probabilities` by label, empty for tasks without classes."""

    id: str
    label: str
    probabilities: dict[str, float] = Field(default_factory=dict)


class ServedAnswers(Artifact):
    """The answers of a version behind the scoring server, and its responses to malformed requests.

    `asked` is the number of test rows sent, `answers` are the answers received, in that order. `refused` describes the response to each
    valid request that was not answered completely; `malformed` maps each malformed request to its status, None if the connection broke.
    `seconds` is the start-up time. `fault`: why the server did not start; `outside`: the cause is not the version (no port, memory or
    time), so a retry may succeed.
    """

    FILE = "served.json"

    version: str
    asked: int = 0
    answers: tuple[ServedAnswer, ...] = ()
    refused: tuple[str, ...] = ()
    malformed: dict[str, int | None] = Field(default_factory=dict)
    seconds: float = 0.0
    fault: str | None = None
    outside: bool = False
