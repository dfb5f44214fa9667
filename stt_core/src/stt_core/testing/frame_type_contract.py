"""What every custom frame type keeps: the contract kit of :class:`~stt_core.interfaces.frame.FrameType`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from stt_core.interfaces.frame import FrameMessage
from stt_core.testing.contract import rule
from stt_core.testing.handler_rules import HandlerRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stt_core.interfaces.endpoint import Peer
    from stt_core.interfaces.frame import FrameType
    from stt_core.testing.handler_rules import Handle

_LARGEST_RELIABLE: Final = 64 * 1024  # bytes
_LARGEST_DATAGRAM: Final = 65_507  # bytes


class FrameTypeContract(HandlerRules):
    """The rules of custom frame types. Give the fixtures :meth:`frame_type` and :meth:`messages`.

    The handler is called as a node calls it; no session is needed. What ``reliable`` declares decides how large the
    messages are that the kit sends.
    """

    @pytest.fixture
    def frame_type(self) -> FrameType:
        """Return the frame type, as it is registered."""
        self.to_be_given("frame_type", "the frame type, as it is registered")

    @pytest.fixture
    def messages(self) -> Iterable[bytes]:
        """Return some messages that the handler takes."""
        self.to_be_given("messages", "some messages that the handler takes")

    @pytest.fixture
    def handle(self, frame_type: FrameType) -> Handle:
        """Return what calls the handler."""

        def call(data: bytes, peer: Peer) -> object:
            return frame_type.handler(FrameMessage(peer, data))

        return call  # type: ignore[return-value]  # whether it returns what it should is a rule

    @pytest.fixture
    def answers(self, messages: Iterable[bytes]) -> Mapping[bytes, bytes | None]:
        """Return the messages: a handler returns None."""
        return dict.fromkeys(messages)

    @pytest.fixture
    def sizes(self, frame_type: FrameType) -> Sequence[int]:
        """Return sizes of messages, up to the largest that can come."""
        return 0, 1, 2, 1000, _LARGEST_RELIABLE if frame_type.reliable else _LARGEST_DATAGRAM

    @rule()
    def test_its_name_has_its_owner_in_front(self, frame_type: FrameType) -> None:
        """``acme.telemetry``: no two plugins mean different things by one name."""
        owner, dot, rest = frame_type.name.partition(".")
        assert owner
        assert dot
        assert rest
        assert frame_type.name.isprintable()
        assert owner != "stt", "that name is the core's"
