"""Notifications to a webhook; a failed one does not stop the others."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.schedule.notify import notify
from tests.support.webhook import Webhook, listening


@pytest.fixture
def webhook() -> Iterator[str]:
    with listening() as address:
        yield address


def test_webhook_gets_the_verdict(webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", webhook)
    notify(tmp_path, "FAIL: tickets version 3", "accuracy 0.71 is below gates.floor.at_least 0.75")

    (message,) = Webhook.requests
    assert message["title"] == "FAIL: tickets version 3"
    assert "gates.floor.at_least" in message["message"]


def test_failed_notification_is_logged_without_its_url(
    webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", f"json://user:hidden@127.0.0.1:9/hook nonsense://hidden mailto:user:hidden@host {webhook}")
    with caplog.at_level(logging.WARNING, logger="flows"):
        notify(tmp_path, "PASS", "it passed")

    assert len(Webhook.requests) == 1
    lines = [record.getMessage() for record in caplog.records if record.name == "flows.schedule.notify"]
    assert [line.split()[2] for line in lines] == ["json,", "nonsense,", "an"]
    assert not any("hidden" in line for line in lines)


def test_no_notification_without_a_target(webhook: str, tmp_path: Path) -> None:
    notify(tmp_path, "PASS", "it passed")

    assert Webhook.requests == []
