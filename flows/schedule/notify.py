"""Send notifications to RETUNE_NOTIFY: by Apprise, or through a notification block of Prefect.

A failed notification never fails the run: the ledger and the registry are authoritative.
"""

import logging
from pathlib import Path
from typing import Any, cast

from flows.settings import read_settings

log = logging.getLogger(__name__)

BLOCK = "block:"


def notify(project: Path, title: str, body: str) -> None:
    """Send `body` (Markdown) to every URL of RETUNE_NOTIFY; a failure is logged with scheme and position, without the secret URL."""
    for number, address in enumerate(read_settings(project).notify.get_secret_value().split(), start=1):
        scheme, separator, _ = address.partition("://")
        target = address if address.startswith(BLOCK) else f"{scheme if separator else 'an invalid URL'}, number {number} of RETUNE_NOTIFY"
        try:
            sent = _through_block(address, title, body) if address.startswith(BLOCK) else _by_apprise(address, title, body)
        except Exception as error:  # any client error; its text may contain the secret URL
            log.warning("notification to %s failed: %s", target, type(error).__name__)
            continue
        if not sent:
            log.warning("notification to %s failed: rejected, or not a service that Apprise supports", target)


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
    cast(Any, block).notify(body, subject=title)  # typed as a coroutine, which it is only in an event loop
    return True
