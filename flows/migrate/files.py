"""Artifacts sent into a server's store and read back from it, by MLflow's own way to hand files through.

Keeps var/migrated.jsonl: what has arrived whole, so that a migration that was interrupted does not send it again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx

from components.core.errors import BadInput, RetuneError, Unavailable
from components.core.hashing import digest_file

log = logging.getLogger(__name__)

SENT = "migrated.jsonl"
PATIENCE = 600.0  # seconds, of one file
AT_ONCE = 8  # files that are on their way
_CHUNK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class ArtifactFile:
    """A file of ours, and its place in the server's store."""

    path: Path
    place: str


def find(folders: Mapping[Path, str]) -> list[ArtifactFile]:
    """Return the files below `folders`, each folder with its place in the store."""
    return [
        ArtifactFile(path, f"{place}/{path.relative_to(folder).as_posix()}")
        for folder, place in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


class Store:
    """The artifacts of a server."""

    def __init__(self, server: str, user: str, password: str) -> None:
        """At the address of MLflow's server."""
        self._server = server
        self._client = httpx.Client(auth=(user, password) if user else None, timeout=httpx.Timeout(PATIENCE, connect=10))

    def check(self) -> None:
        """Make sure that the server knows us, and hands artifacts through into a store that it can read.

        Raises:
            BadInput: it does not know us, or keeps no artifacts; or its store is missing or forbids it.
            Unavailable: it does not answer.
        """
        answer = self._ask("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": ""})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise BadInput(f"MLflow at {self._server} refuses RETUNE_MLFLOW_USER with RETUNE_MLFLOW_PASSWORD")
        if not answer.is_success:
            raise BadInput(f"MLflow at {self._server} cannot use its store of artifacts: it answers with {_said(answer)}; see its log")

    def send(self, artifact: ArtifactFile) -> None:
        """Send a file.

        Raises:
            Unavailable: the server or its store did not take it.
        """
        with artifact.path.open("rb") as file:
            size = str(artifact.path.stat().st_size)
            answer = self._ask(
                "PUT", _address(artifact.place), content=iter(lambda: file.read(_CHUNK), b""), headers={"Content-Length": size}
            )
        if not answer.is_success:
            raise Unavailable(f"MLflow at {self._server} does not take {artifact.place}: it answers with {_said(answer)}")

    def digest(self, artifact: ArtifactFile) -> str | None:
        """Return the sha256 of a file as the server gives it back; None where it has none."""
        hashed = sha256()
        try:
            with self._client.stream("GET", self._server + _address(artifact.place)) as answer:
                if not answer.is_success:
                    return None
                for chunk in answer.iter_bytes(_CHUNK):
                    hashed.update(chunk)
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self._server} does not answer: {type(error).__name__}") from None
        return hashed.hexdigest()

    def _ask(self, method: str, path: str, **more: object) -> httpx.Response:
        try:
            return self._client.request(method, self._server + path, **more)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self._server} does not answer: {type(error).__name__}") from None


def _address(place: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/{quote(place)}"


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code} {' '.join(answer.text.split())[:200]}"


def send_all(store: Store, server: str, artifacts: list[ArtifactFile], var: Path) -> None:
    """Send what has not arrived yet, and read everything back.

    Raises:
        RetuneError: files came back otherwise than they were sent, with how many; the next try sends all of them again.
    """
    known = dict(_sent(var / SENT, server))
    digests = {artifact.place: digest_file(artifact.path) for artifact in artifacts}
    left = [artifact for artifact in artifacts if known.get(artifact.place) != digests[artifact.place]]
    with (var / SENT).open("a", encoding="utf-8") as notes:
        for artifact, _ in _at_once(store.send, left):
            notes.write(json.dumps({"server": server, "place": artifact.place, "sha256": digests[artifact.place]}) + "\n")
            notes.flush()
    log.info("%d artifacts were sent, %d were there; all are read back", len(left), len(artifacts) - len(left))
    bad = [artifact.place for artifact, found in _at_once(store.digest, artifacts) if found != digests[artifact.place]]
    if bad:
        (var / SENT).unlink()
        raise RetuneError(f"{len(bad)} of {len(artifacts)} artifacts came back otherwise than they were sent, first {bad[0]}")


def _at_once(act: Callable[[ArtifactFile], T], artifacts: list[ArtifactFile]) -> Iterator[tuple[ArtifactFile, T]]:
    """Do something with several artifacts at once; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {pool.submit(act, artifact): artifact for artifact in artifacts}
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                yield waiting[done], done.result()
                if number % 1_000 == 0:
                    log.info("%d of %d", number, len(artifacts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _sent(notes: Path, server: str) -> Iterator[tuple[str, str]]:
    if not notes.exists():
        return
    for line in notes.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
            if one["server"] == server:
                yield one["place"], one["sha256"]
        except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
            continue
