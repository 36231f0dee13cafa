"""Load a version and answer over HTTP until the process is told to end.

SETTINGS is JSON: `package`, the folder of the checked package; `about`, what /version tells; `limits`; `names`, by which it is called
besides its own; `socket`, the number of a listening socket, and its `address`; `folder`, which is the working folder and is removed at
the end.
"""

import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from .connections import limited
from .middleware import RequestMiddleware
from .request_parsing import Limits

log = logging.getLogger(__name__)

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SerializedModel:
    """The loaded version, asked by one thread at a time: its tokenizer cannot be used by two at once."""

    def __init__(self, model: Any) -> None:
        self.metadata = model.metadata
        self._model, self._turn = model, threading.Lock()

    def predict(self, data: Any, params: Any = None) -> Any:
        """Answer a table; where the version's own code fails, that is the server's fault and not the request's."""
        from mlflow.exceptions import MlflowException

        with self._turn:
            try:
                return self._model.predict(data)
            except MlflowException:
                raise
            except Exception as error:
                log.exception("the version failed")
                raise MlflowException("the version failed on this request; the server's log says how") from error


def leave(folder: Path) -> Callable[[int, FrameType | None], None]:
    """Return a handler that ends the process: at once while the version is loaded, and as the last step when it was served."""

    def handler(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signal.raise_signal(signal.SIGTERM)  # which by then lets requests finish first
            return
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)

    return handler


def main(settings: str) -> None:
    """Load the version, and answer on the socket until the process is told to end; requests that are inside by then are answered."""
    given = json.loads(settings)
    about, folder = given["about"], Path(given["folder"])
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave(folder))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # blocked by who started us, so that none came before the handlers
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        model = load(given["package"])
    except Exception as error:  # whatever its own code raises
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"error: {about['uri']} cannot be served: {type(error).__name__}: {error}")
    print(f"{about['uri']} is served on {given['address']} (package {about['package'][:12]}); Ctrl-C ends it", flush=True)
    serve(model, about, Limits(**given["limits"]), socket.socket(fileno=given["socket"]), given["names"])


def load(package: str) -> Any:
    """Load a package by its own code."""
    import mlflow.pyfunc

    if "components" in sys.modules:
        raise ImportError("components was imported before the version: its own code would not be used")
    return mlflow.pyfunc.load_model(Path(package).as_uri())  # of a path, MLflow decodes what looks like %25 in it


def serve(model: Any, about: Mapping[str, Any], limits: Limits, listening: socket.socket, names: Sequence[str]) -> None:
    """Answer on a listening socket until a signal comes."""
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(SerializedModel(model))  # type: ignore[arg-type]  # it is asked for these two attributes alone
    loopback = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    door = RequestMiddleware(app, model.metadata.get_input_schema().input_names(), about, limits, loopback, names)
    config = uvicorn.Config(door, http=limited(limits), ws="none", log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run([listening])
