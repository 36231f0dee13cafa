"""Load a version and serve it over HTTP until the process is stopped.

SETTINGS is JSON: `package`, the folder of the checked package; `about`, the response of /version; `limits`; `names`, further host
names; `socket`, the file descriptor of a listening socket, and its `address`; `folder`, the working folder, which is removed at the
end.
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

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SerializedModel:
    """The loaded version, used by one thread at a time, because tokenizers are not thread-safe."""

    def __init__(self, model: Any) -> None:
        self.metadata = model.metadata
        self._model, self._lock = model, threading.Lock()

    def predict(self, data: Any, params: Any = None) -> Any:
        """Answer a table; report an error of the version's own code as a server error."""
        from mlflow.exceptions import MlflowException

        with self._lock:
            try:
                return self._model.predict(data)
            except MlflowException:
                raise
            except Exception as error:
                log.exception("the version failed")
                raise MlflowException("the version failed on this request; see the server's log") from error


def exit_handler(folder: Path) -> Callable[[int, FrameType | None], None]:
    """Return a signal handler that exits: at once while the version is loading, and as the last step after serving."""

    def handler(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signal.raise_signal(signal.SIGTERM)  # uvicorn's handler finishes active requests first
            return
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)

    return handler


def main(settings: str) -> None:
    """Load the version, and answer on the socket until a stop signal; active requests are finished."""
    config = json.loads(settings)
    about, folder = config["about"], Path(config["folder"])
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, exit_handler(folder))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the parent blocked them until the handlers exist
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        model = load(config["package"])
    except Exception as error:  # the version's own code may raise anything
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"error: {about['uri']} cannot be served: {type(error).__name__}: {error}")
    print(f"serving {about['uri']} on {config['address']} (package {about['package'][:12]}); Ctrl-C stops it", flush=True)
    serve(model, about, Limits(**config["limits"]), socket.socket(fileno=config["socket"]), config["names"])


def load(package: str) -> Any:
    """Load a package with its own code."""
    import mlflow.pyfunc

    if "components" in sys.modules:
        raise ImportError("components was imported before the version, so the version's own code would not be used")
    return mlflow.pyfunc.load_model(Path(package).as_uri())  # as a URI: MLflow decodes sequences such as %25 in a path


def serve(model: Any, about: Mapping[str, Any], limits: Limits, listening: socket.socket, names: Sequence[str]) -> None:
    """Answer on a listening socket until a stop signal."""
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(SerializedModel(model))  # type: ignore[arg-type]  # MLflow uses only these two attributes
    loopback = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    middleware = RequestMiddleware(app, model.metadata.get_input_schema().input_names(), about, limits, loopback, names)
    config = uvicorn.Config(middleware, http=limited(limits), ws="none", log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run([listening])
