"""People are told by a webhook: the verdict, its reasons and where to read on; who cannot be told stops nothing."""

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


def test_a_webhook_hears_the_verdict(webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", webhook)
    notify(tmp_path, "FAIL: tickets version 3", "accuracy 0.71 is below gates.floor.at_least 0.75")

    (told,) = Webhook.told
    assert told["title"] == "FAIL: tickets version 3"
    assert "gates.floor.at_least" in told["message"]


def test_who_cannot_be_told_stops_nothing_and_is_not_spelled_out(
    webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", f"json://user:hidden@127.0.0.1:9/hook nonsense://hidden mailto:user:hidden@host {webhook}")
    with caplog.at_level(logging.WARNING, logger="flows"):
        notify(tmp_path, "PASS", "it passed")

    assert len(Webhook.told) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "flows.schedule.notify"]
    assert [line.split()[0] for line in said] == ["json,", "nonsense,", "no"]
    assert not any("hidden" in line for line in said)


def test_nobody_is_told_where_nobody_is_named(webhook: str, tmp_path: Path) -> None:
    notify(tmp_path, "PASS", "it passed")

    assert Webhook.told == []
