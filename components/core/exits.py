"""How every command ends: done, or with one message and an exit code, never with a traceback.

What nobody foresaw goes into a file that only its owner can read, below `var/log` of the project, else in the temporary folder;
`--debug`, or RETUNE_DEBUG=1, prints it too.
"""

import contextlib
import errno
import logging
import os
import select
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.core.errors import BadInput, Cancelled, RetuneError, Unavailable, readable_error

DEBUG = "RETUNE_DEBUG"
KEPT = 50  # traces in a folder; older ones are removed
PIPE_CLOSED = 141  # as a shell names the end by SIGPIPE
_TRACE = "retune_trace"  # an error's attribute: where its trace is
GO_ON = "run the same command again to go on"

# What a system says of a file, with the next step and the exit code.
_SYSTEM = {
    errno.ENOSPC: ("the disk is full; free some space, then run again", Unavailable.exit_code),
    errno.EDQUOT: ("the disk quota is used up; free some space, then run again", Unavailable.exit_code),
    errno.ENOMEM: ("there is not enough memory; run again when there is more", Unavailable.exit_code),
    errno.EMFILE: ("too many files are open; `ulimit -n` shows and sets how many may be", Unavailable.exit_code),
    errno.EROFS: ("the file system is read-only; run where it can be written", RetuneError.exit_code),
    errno.EACCES: ("permission denied; check the owner and mode", RetuneError.exit_code),
    errno.EPERM: ("the operation is not permitted; check the owner and mode", RetuneError.exit_code),
    errno.EIO: ("the disk failed to read or write; check the disk", RetuneError.exit_code),
    errno.ENAMETOOLONG: ("the name is too long for the file system", BadInput.exit_code),
    errno.ELOOP: ("its symbolic links form a loop", BadInput.exit_code),
    errno.EISDIR: ("it is a folder, expected a file", BadInput.exit_code),
    errno.ENOTDIR: ("a part of the path is a file, expected a folder", BadInput.exit_code),
}


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; how it failed is printed in one message.

    A traceback is never printed without `--debug`: not of this thread, not of another one, and not by a library that logs it.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream that a test has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _without_traces():
            _refuse_undecodable()
            code = command() or 0
            if sys.stdout is not None:
                sys.stdout.flush()
    except Exception as error:
        return _fail(error)
    except KeyboardInterrupt as error:
        return _say(f"interrupted; {GO_ON}", Cancelled.exit_code, error)
    return code


def debug_mode() -> bool:
    """Say whether traces are to be printed."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def write_trace(error: BaseException) -> Path:
    """Write the trace of an error into a file of its own, once, and return its path."""
    if known := getattr(error, _TRACE, None):
        return Path(known)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
    second, fraction = divmod(time.time_ns(), 10**9)  # in the order of time by their names, also within a second
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
                with contextlib.suppress(OSError):  # of another account, in the temporary folder of all
                    old.unlink(missing_ok=True)
            return Path(path)
    return Path(os.devnull)


def one_line(error: BaseException) -> str:
    """Return what an unforeseen error says, in one line that names the file with its trace."""
    told = " ".join(str(error).split())
    return readable_error(f"unexpected {type(error).__name__}: {told or 'no message'} (trace: {write_trace(error)})")


def _fail(error: Exception) -> int:
    if isinstance(error, RetuneError):
        return _say(str(error), error.exit_code, error)
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer is written at the very end
        return PIPE_CLOSED
    if foreseen := _foreseen(error):
        return _say(*foreseen, error)
    return _say(one_line(error), RetuneError.exit_code, error)


def _foreseen(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, MemoryError):
        return _SYSTEM[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        told, code = _SYSTEM[error.errno]
        paths = " and ".join(os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes))
        return (f"{paths}: {told}" if paths else told), code
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_folder():
        return "the working folder does not exist any more; change to one that does", BadInput.exit_code
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # pathlib, up to Python 3.12
        return f"{str(error).removeprefix('Symlink loop from ')}: {_SYSTEM[errno.ELOOP][0]}", BadInput.exit_code
    if isinstance(error, ValueError) and "embedded null byte" in str(error):
        return "a path holds a null character, which no file's name can", BadInput.exit_code
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object!r} is not UTF-8; rename the file, or convert the text", BadInput.exit_code
    return None


def _say(message: str, code: int, error: BaseException) -> int:
    if debug_mode():
        traceback.print_exception(error)
    if sys.stderr is not None:  # it was closed: print would write to standard output, among the JSON
        with contextlib.suppress(OSError):
            print(f"error: {readable_error(message)}", file=sys.stderr, flush=True)
    return code


def _refuse_undecodable() -> None:
    """Refuse arguments that are not UTF-8: whatever is made of them could be neither written nor printed.

    Raises:
        BadInput: with the argument.
    """
    for number, argument in enumerate(sys.argv[1:], 1):
        if not _is_text(argument):
            raise BadInput(f"argument {number} is not UTF-8: {argument!r}; rename the file, or convert the text")
    if wrong := [name for name, value in os.environ.items() if name.startswith("RETUNE_") and not _is_text(value)]:
        raise BadInput(f"the environment variable {wrong[0]} is not UTF-8: {os.environ[wrong[0]]!r}")


def _has_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nobody_reads() -> bool:
    """Say whether the reader of standard output has gone, as `head` does when it has enough."""
    looked = select.poll()
    looked.register(sys.stdout.fileno(), 0)
    return bool(looked.poll(0))


def _log_folder() -> Path | None:
    """Return where the project keeps its logs: of the outermost one, since workspaces and checkouts lie inside it."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return None
    found = [folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file() and (folder / "components").is_dir()]
    return found[-1] / "var/log" if found else None


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """Let other threads, and what is logged with a trace, say one line."""
    hook, factory = threading.excepthook, logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = factory(*args, **kwargs)
        error = made.exc_info[1] if made.exc_info else None
        if error is not None and not debug_mode():
            known = isinstance(error, RetuneError) or made.levelno < logging.WARNING
            made.exc_info = None
            if not known:
                made.msg, made.args = f"{made.getMessage()}: {one_line(error)}", ()
        return made

    threading.excepthook = _of_a_thread
    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.setLogRecordFactory(factory)


def _of_a_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        _say(one_line(failed.exc_value), 0, failed.exc_value)
