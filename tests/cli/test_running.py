"""Does a command end with the status that it should, and cleanly on a signal?"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from stt_cli.running import run_until_signal, status_of
from stt_core.errors import (
    ConfigError,
    ConnectError,
    ConnectReason,
    ErrorCode,
    LocalError,
    PeerUnreachable,
    SessionClosed,
    STTError,
    TransportError,
)
from stt_core.interfaces import ExitStatus


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectError(ConnectReason.NO_ANSWER, ""), 3),
        (ConnectError(ConnectReason.REFUSED, ""), 3),
        (ConnectError(ConnectReason.WRONG_PEER, ""), 3),
        (ConnectError(ConnectReason.UNREACHABLE, ""), 4),
        (ConnectError(ConnectReason.CANCELLED, ""), 1),
        (PeerUnreachable(None, ""), 4),
        (TransportError(""), 1),
        (SessionClosed(ErrorCode.REFUSED, "", by_peer=True), 3),
        (SessionClosed(ErrorCode.TIMEOUT, "", by_peer=False), 1),
        (ConfigError(""), 2),
        (LocalError(""), 1),
    ],
)
def test_each_error_has_its_status(error: STTError, status: int) -> None:
    assert status_of(error) == status


def test_every_reason_has_a_status() -> None:
    for reason in ConnectReason:
        assert status_of(ConnectError(reason, "")) in ExitStatus


def test_the_status_of_the_command_is_returned_and_its_error_raised() -> None:
    async def done(status: ExitStatus) -> ExitStatus:
        return status

    async def fail() -> ExitStatus:
        raise ConfigError("wrong")

    assert run_until_signal(done(ExitStatus.REFUSED)) == ExitStatus.REFUSED
    with pytest.raises(ConfigError):
        run_until_signal(fail())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_command_say_good_bye(number: signal.Signals) -> None:
    said: list[str] = []

    async def wait() -> ExitStatus:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            said.append("good-bye")
        return ExitStatus.DONE

    assert run_until_signal(wait()) == 128 + number
    assert said == ["good-bye"]


def test_a_command_that_is_done_when_the_signal_comes_is_done() -> None:
    async def finish() -> ExitStatus:
        signal.raise_signal(signal.SIGTERM)
        return ExitStatus.DONE

    assert run_until_signal(finish()) == ExitStatus.DONE


def test_a_second_signal_cuts_the_good_bye_short() -> None:
    async def linger() -> ExitStatus:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return ExitStatus.DONE

    assert run_until_signal(linger()) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_runs_ends_it_with_the_same_status(number: signal.Signals) -> None:
    script = (
        "import signal, sys; import stt_cli.main as main\n"
        "class Command:\n"
        "    def __call__(self, **_): signal.raise_signal(int(sys.argv[1]))\n"
        "main.stt = Command()\n"
        "main.main()"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, str(int(number))], check=False, capture_output=True, text=True
    )

    assert ended.returncode == 128 + number
    assert ended.stderr == ""
