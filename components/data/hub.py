"""The Hugging Face hub: what its client raises, in our words. Nothing that is downloaded is ever run."""

from collections.abc import Iterator
from contextlib import contextmanager

from components.core.errors import BadInput, Unavailable, first_line

_BUSY = 429  # and all from 500 on


@contextmanager
def hub_errors(asked: str, bad: type[BadInput], otherwise: str = "") -> Iterator[None]:
    """Turn the errors of a download into ours; `asked` begins each message, `otherwise` says what else could be done than to download.

    Raises:
        BadInput: as `bad`: it is not in the cache while the hub is switched off (HF_HUB_OFFLINE), or the hub refuses.
        Unavailable: the hub is out of reach or busy.
    """
    import httpx2
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if is_offline_mode():
            raise bad(
                f"{asked} it is not in the local cache of the hub, or not whole, while the hub is switched off; {otherwise}run with "
                "HF_HUB_OFFLINE=0 to download it"
            ) from error
        raise Unavailable(f"{asked} the hub is out of reach: {first_line(error)}") from error
    except HfHubHTTPError as error:
        if error.response.status_code == _BUSY or error.response.status_code >= 500:
            raise Unavailable(f"{asked} the hub is busy: {first_line(error)}") from error
        raise bad(f"{asked} the hub answers: {first_line(error)}") from error
    except HFValidationError as error:
        raise bad(f"{asked} the hub answers: {first_line(error)}") from error
    except httpx2.HTTPError as error:
        raise Unavailable(f"{asked} the hub is out of reach: {first_line(error)}") from error
