from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from stt_core import ConnectError, ConnectReason, STTNode, generate_seed
from stt_framed import plugin

# Installed or not, the plugin under test is this one.
NODE: dict[str, Any] = {"shared_seed": generate_seed(), "plugins": [plugin], "disable_plugins": ["*"]}


def node() -> STTNode:
    return STTNode(node_seed=generate_seed(), **NODE)


def test_sessions_are_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stt_framed")

    async def meet() -> None:
        async with node() as alice, node() as bob:
            (url,) = await bob.listen("memory://journal")
            await (await alice.connect(url)).ping()

    asyncio.run(meet())
    written = [record.getMessage() for record in caplog.records if record.name == "stt_framed"]
    assert sum("begins" in line for line in written) == 2
    assert sum("session" in line and "over" not in line for line in written) == 2
    assert sum("is over" in line for line in written) == 2


def test_who_is_denied_is_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def meet() -> None:
        async with node() as alice, node() as bob:
            monkeypatch.setenv("STT_FRAMED_DENIED", f"00, {alice.node_id.hex()}")
            (url,) = await bob.listen("memory://journal")
            with pytest.raises(ConnectError) as caught:
                await alice.connect(url)
            assert caught.value.reason is ConnectReason.REFUSED

    asyncio.run(meet())
