"""Translate the errors of the Hugging Face hub client."""

from collections.abc import Iterator
from contextlib import contextmanager

from components.core.errors import BadInput, Unavailable, first_line

_TOO_MANY_REQUESTS = 429


@contextmanager
def hub_errors(prefix: str, error_type: type[BadInput], alternative: str = "") -> Iterator[None]:
    """Translate the errors of a download; `prefix` starts each message, `alternative` names what else the user can do.

    Raises:
        BadInput: as `error_type`: the files are not cached while the hub is offline (HF_HUB_OFFLINE), or the hub refuses.
        Unavailable: the hub is unreachable or busy.
    """
    import httpx2
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if is_offline_mode():
            raise error_type(
                f"{prefix} the hub is offline and its local cache does not contain all files; {alternative}run with "
                "HF_HUB_OFFLINE=0 to download them"
            ) from error
        raise Unavailable(f"{prefix} the hub is unreachable: {first_line(error)}") from error
    except HfHubHTTPError as error:
        if error.response.status_code == _TOO_MANY_REQUESTS or error.response.status_code >= 500:
            raise Unavailable(f"{prefix} the hub is busy: {first_line(error)}") from error
        raise error_type(f"{prefix} the hub answers: {first_line(error)}") from error
    except HFValidationError as error:
        raise error_type(f"{prefix} the hub answers: {first_line(error)}") from error
    except httpx2.HTTPError as error:
        raise Unavailable(f"{prefix} the hub is unreachable: {first_line(error)}") from error
