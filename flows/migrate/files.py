"""Send artifacts to the store of an MLflow server through its artifact proxy, and read them back.

Keeps var/migrated.jsonl, a list of transferred files, so that an interrupted migration does not send them again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx

from components.core.errors import BadInput, RetuneError, Unavailable
from components.core.hashing import digest_file
from components.core.output_dir import open_log

log = logging.getLogger(__name__)

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"  # MLflow's artifact proxy
SENT = "migrated.jsonl"
PATIENCE = 600.0  # seconds per file
AT_ONCE = 8  # parallel transfers
_CHUNK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class ArtifactFile:
    """A local file and its path in the server's store."""

    path: Path
    target: str


def find(folders: Mapping[Path, str]) -> list[ArtifactFile]:
    """Return the files in `folders`, which map each folder to its path in the store."""
    return [
        ArtifactFile(path, f"{target}/{path.relative_to(folder).as_posix()}")
        for folder, target in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


class Store:
    """The artifact store of an MLflow server."""

    def __init__(self, server: str, user: str, password: str) -> None:
        """Connect to the MLflow server at URL `server`."""
        self._server = server
        self._client = httpx.Client(auth=(user, password) if user else None, timeout=httpx.Timeout(PATIENCE, connect=10))

    def check(self) -> None:
        """Check the credentials, and that the server proxies artifacts to a readable store.

        Raises:
            BadInput: the credentials are rejected, or the server has no artifact store or cannot access it.
            Unavailable: it does not answer.
        """
        with self._reachable():
            answer = self._client.get(f"{self._server}{ARTIFACTS}", params={"path": ""})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise BadInput(f"MLflow at {self._server} rejects RETUNE_MLFLOW_USER and RETUNE_MLFLOW_PASSWORD")
        if not answer.is_success:
            raise BadInput(f"MLflow at {self._server} cannot use its artifact store: it answers with {_summary(answer)}; see its log")

    def send(self, artifact: ArtifactFile) -> None:
        """Send a file; raise Unavailable if the server or its store rejects it."""
        size = str(artifact.path.stat().st_size)
        with self._reachable(), artifact.path.open("rb") as file:
            content = iter(lambda: file.read(_CHUNK), b"")
            answer = self._client.put(self._server + _path(artifact.target), content=content, headers={"Content-Length": size})
        if not answer.is_success:
            raise Unavailable(f"MLflow at {self._server} rejects {artifact.target}: it answers with {_summary(answer)}")

    def digest(self, artifact: ArtifactFile) -> str | None:
        """Return the sha256 of a file read back from the server; None if it does not exist."""
        hashed = sha256()
        with self._reachable(), self._client.stream("GET", self._server + _path(artifact.target)) as answer:
            if not answer.is_success:
                return None
            for chunk in answer.iter_bytes(_CHUNK):
                hashed.update(chunk)
        return hashed.hexdigest()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self._server} does not answer: {type(error).__name__}") from None


def _path(target: str) -> str:
    return f"{ARTIFACTS}/{quote(target)}"


def _summary(answer: httpx.Response) -> str:
    return f"{answer.status_code} {' '.join(answer.text.split())[:200]}"


def send_all(store: Store, server: str, artifacts: list[ArtifactFile], var: Path) -> None:
    """Send the pending files and read all back; raise RetuneError if one differs, and the next try sends all of them again."""
    transferred = _sent(var / SENT, server)
    digests = {artifact.target: digest_file(artifact.path) for artifact in artifacts}
    pending = [artifact for artifact in artifacts if transferred.get(artifact.target) != digests[artifact.target]]
    with open(open_log(var / SENT), "a", encoding="utf-8") as notes:
        for artifact, _ in _at_once(store.send, pending):
            notes.write(json.dumps({"server": server, "place": artifact.target, "sha256": digests[artifact.target]}) + "\n")
            notes.flush()
    log.info("sent %d artifacts, %d were already there; verifying all", len(pending), len(artifacts) - len(pending))
    bad = [artifact.target for artifact, digest in _at_once(store.digest, artifacts) if digest != digests[artifact.target]]
    if bad:
        (var / SENT).unlink()
        raise RetuneError(f"{len(bad)} of {len(artifacts)} artifacts differ from what was sent, first {bad[0]}")


def _at_once(act: Callable[[ArtifactFile], T], artifacts: list[ArtifactFile]) -> Iterator[tuple[ArtifactFile, T]]:
    """Apply `act` to artifacts in parallel; stop at the first error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {pool.submit(act, artifact): artifact for artifact in artifacts}
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                yield waiting[done], done.result()
                if number % 1_000 == 0:
                    log.info("%d of %d", number, len(artifacts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _sent(notes: Path, server: str) -> dict[str, str]:
    sent = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # an incomplete last line of a killed run
            entry = json.loads(line)
            if entry["server"] == server:
                sent[entry["place"]] = entry["sha256"]
    return sent
