"""Tell people how a run ended: by Apprise, to whatever RETUNE_NOTIFY names, or through a notification block of Prefect's.

Telling never fails what it tells of: the ledger and the registry are the record.
"""

import logging
from pathlib import Path
from typing import Any, cast

from flows.settings import read_settings

log = logging.getLogger(__name__)

BLOCK = "block:"


def notify(project: Path, title: str, body: str) -> None:
    """Send `body` (Markdown) to every address of RETUNE_NOTIFY; one that fails is logged by its kind and place, without the address."""
    for place, address in enumerate(read_settings(project).notify.get_secret_value().split(), start=1):
        scheme, separator, _ = address.partition("://")
        kind = address if address.startswith(BLOCK) else f"{scheme if separator else 'no address'}, number {place} of RETUNE_NOTIFY,"
        try:
            sent = _through_block(address, title, body) if address.startswith(BLOCK) else _by_apprise(address, title, body)
        except Exception as error:  # whatever a service's client raises: its text may hold the address, which is a secret
            log.warning("%s was not told: %s", kind, type(error).__name__)
            continue
        if not sent:
            log.warning("%s was not told: it refused, or is no service that Apprise knows", kind)


def _by_apprise(address: str, title: str, body: str) -> bool:
    import apprise

    service = apprise.Apprise()
    return bool(service.add(address)) and bool(service.notify(body=body, title=title, body_format=apprise.NotifyFormat.MARKDOWN))


def _through_block(address: str, title: str, body: str) -> bool:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block = Block.load(address.removeprefix(BLOCK))
    if not isinstance(block, NotificationBlock):
        return False
    cast(Any, block).notify(body, subject=title)  # it is typed as the coroutine that it is in an event loop only
    return True
