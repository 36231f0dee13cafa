"""Run a command and turn every error into one message and an exit code, without a traceback.

The traceback of an unexpected error goes to a file readable by its owner only, in `var/log` of the project or the temporary folder;
`--debug` or RETUNE_DEBUG=1 also prints it.
"""

import contextlib
import errno
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from components.core.errors import BadInput, Cancelled, RetuneError, Unavailable, readable_error

DEBUG = "RETUNE_DEBUG"
KEPT = 50  # trace files per folder; older ones are deleted
PIPE_CLOSED = 141  # the exit code that shells report for SIGPIPE
_TRACE = "retune_trace"  # attribute of an error: the path of its trace file
RESUME = "run the same command again to resume"

# By error number: the message with the next step, and the exit code.
_SYSTEM = {
    errno.ENOSPC: ("the disk is full; free some space, then run again", Unavailable.exit_code),
    errno.EDQUOT: ("the disk quota is used up; free some space, then run again", Unavailable.exit_code),
    errno.ENOMEM: ("there is not enough memory; run again when there is more", Unavailable.exit_code),
    errno.EMFILE: ("too many files are open; `ulimit -n` shows and sets the limit", Unavailable.exit_code),
    errno.EROFS: ("the file system is read-only; use a writable one", RetuneError.exit_code),
    errno.EACCES: ("permission denied; check the owner and mode", RetuneError.exit_code),
    errno.EPERM: ("the operation is not permitted; check the owner and mode", RetuneError.exit_code),
    errno.EIO: ("the disk failed to read or write; check the disk", RetuneError.exit_code),
    errno.ENAMETOOLONG: ("the name is too long for the file system", BadInput.exit_code),
    errno.ELOOP: ("its symbolic links form a loop", BadInput.exit_code),
    errno.EISDIR: ("it is a folder, expected a file", BadInput.exit_code),
    errno.ENOTDIR: ("a part of the path is a file, expected a folder", BadInput.exit_code),
}


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; print one message if it fails.

    Without `--debug` no traceback is printed, neither from any thread nor by a library that logs one.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream replaced by a test
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _hide_tracebacks():
            _refuse_undecodable()
            code = command() or 0
            if sys.stdout is not None:
                sys.stdout.flush()
    except Exception as error:
        return _fail(error)
    except KeyboardInterrupt as error:
        return _report(str(error) or f"interrupted; {RESUME}", Cancelled.exit_code, error)
    return code


def cancel_on(*signals: signal.Signals) -> None:
    """Turn signals into `Cancelled`, so that cleanup runs, which further ones do not interrupt; an ignored one (`nohup`) stays ignored."""

    def cancel(number: int, _frame: FrameType | None) -> None:
        for other in signals:
            signal.signal(other, signal.SIG_IGN)
        raise Cancelled(f"ended by {signal.Signals(number).name}; run again to resume")

    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, cancel)


def debug_mode() -> bool:
    """Return whether tracebacks are printed."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def write_trace(error: BaseException) -> Path:
    """Write the traceback of an error to a new file, once per error, and return its path."""
    if written := getattr(error, _TRACE, None):
        return Path(written)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
    second, fraction = divmod(time.time_ns(), 10**9)  # names sort by time, also within a second
    name = f"retune-error-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(second))}.{fraction:09}Z-{os.getpid()}-"
    for folder in (_log_folder(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if folder is None:
                continue
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(".log", name, folder)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            setattr(error, _TRACE, path)
            for old in sorted(folder.glob("retune-error-*.log"))[:-KEPT]:
                with contextlib.suppress(OSError):  # a file of another account in a shared temporary folder
                    old.unlink(missing_ok=True)
            return Path(path)
    return Path(os.devnull)


def one_line(error: BaseException) -> str:
    """Return the message of an unexpected error in one line that names its trace file."""
    message = " ".join(str(error).split()) or "no message"
    return readable_error(f"unexpected {type(error).__name__}: {message} (trace: {write_trace(error)})")


def _fail(error: Exception) -> int:
    if isinstance(error, RetuneError):
        return _report(str(error), error.exit_code, error)
    if isinstance(error, BrokenPipeError) and _reader_closed():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the buffer at exit
        return PIPE_CLOSED
    if expected := _system_error(error):
        return _report(*expected, error)
    return _report(one_line(error), RetuneError.exit_code, error)


def _system_error(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, MemoryError):
        return _SYSTEM[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        message, code = _SYSTEM[error.errno]
        paths = " and ".join(os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes))
        return (f"{paths}: {message}" if paths else message), code
    if isinstance(error, FileNotFoundError) and error.filename is None and _working_folder() is None:
        return "the working folder no longer exists; change to another one", BadInput.exit_code
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # pathlib, up to Python 3.12
        return f"{str(error).removeprefix('Symlink loop from ')}: {_SYSTEM[errno.ELOOP][0]}", BadInput.exit_code
    if isinstance(error, ValueError) and "embedded null byte" in str(error):
        return "a path contains a null character", BadInput.exit_code
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object!r} is not UTF-8; rename the file, or convert the text", BadInput.exit_code
    return None


def _report(message: str, code: int, error: BaseException) -> int:
    if debug_mode():
        traceback.print_exception(error)
    if sys.stderr is not None:  # if closed, print would write to standard output, into the JSON
        with contextlib.suppress(OSError):
            print(f"error: {readable_error(message)}", file=sys.stderr, flush=True)
    return code


def _refuse_undecodable() -> None:
    """Raise BadInput for arguments and RETUNE_ variables that are not UTF-8: they can be neither written nor printed."""
    for number, argument in enumerate(sys.argv[1:], 1):
        if not _is_text(argument):
            raise BadInput(f"argument {number} is not UTF-8: {argument!r}; rename the file, or convert the text")
    if wrong := [name for name, value in os.environ.items() if name.startswith("RETUNE_") and not _is_text(value)]:
        raise BadInput(f"the environment variable {wrong[0]} is not UTF-8: {os.environ[wrong[0]]!r}")


def _working_folder() -> Path | None:
    """Return the working folder; None if it was deleted."""
    with contextlib.suppress(OSError):
        return Path.cwd()
    return None


def _is_text(value: str) -> bool:
    return value.encode(errors="ignore").decode() == value


def _reader_closed() -> bool:
    """Return whether the reader of standard output has closed it, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _log_folder() -> Path | None:
    """Return the log folder of the outermost project, since workspaces and checkouts are inside it."""
    here = _working_folder()
    folders = (here, *here.parents) if here else ()
    projects = [folder for folder in folders if (folder / "dvc.yaml").is_file() and (folder / "components").is_dir()]
    return projects[-1] / "var/log" if projects else None


@contextlib.contextmanager
def _hide_tracebacks() -> Iterator[None]:
    """Reduce errors of other threads and logged tracebacks to one line."""
    hook, factory = threading.excepthook, logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        entry = factory(*args, **kwargs)
        error = entry.exc_info[1] if entry.exc_info else None
        if error is not None and not debug_mode():
            entry.exc_info = None
            if not isinstance(error, RetuneError) and entry.levelno >= logging.WARNING:
                entry.msg, entry.args = f"{entry.getMessage()}: {one_line(error)}", ()
        return entry

    threading.excepthook = _report_thread_error
    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.setLogRecordFactory(factory)


def _report_thread_error(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        _report(one_line(failed.exc_value), 0, failed.exc_value)
