"""The handshakes of one node that are not sessions yet: those that it began and those that peers began.

Datagrams and time in, datagrams and events out. The initiator's rules are in :mod:`stt_core.engine.outgoing`, the
responder's in :mod:`stt_core.engine.incoming`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stt_core.engine.ephemeral import EphemeralKeys
from stt_core.engine.handshake import STTHandshake, SuiteOffer
from stt_core.engine.handshake_events import HandshakeDropped
from stt_core.engine.incoming import IncomingHandshakes
from stt_core.engine.outgoing import OutgoingHandshakes
from stt_core.errors import HandshakeError
from stt_core.wire.frame import FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from stt_core.config import STTConfig
    from stt_core.engine.handshake_events import HandshakeEvent
    from stt_core.identity import Identity
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.seeds import Keyring
    from stt_core.wire.frame import RawFrame
    from stt_core.wire.messages import Parameters


class HalfOpenTable:
    """The handshakes of one node; does no I/O and reads no clock.

    Drive it in this order after every input: :meth:`datagrams_to_send`, :meth:`next_timeout`, :meth:`events`. What a
    peer sends never raises. ``now`` is in seconds and never goes back.

    Args:
        identity: Who this node is.
        keyring: The shared seeds.
        config: The settings of the handshake.
        suites: Those to offer and to accept, by preference.
        parameters: What to tell peers.
        is_session_id_taken: Whether a session of this node has that id.
        random: Returns that many random bytes.

    Raises:
        ConfigError: No suite is left to offer.
        LocalError: The parameters are too large.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        keyring: Keyring,
        config: STTConfig,
        suites: Mapping[int, CryptoSuite],
        parameters: Parameters,
        is_session_id_taken: Callable[[bytes], bool],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        ephemeral_keys = EphemeralKeys(config.ephemeral_key_lifetime, random)
        encoded_parameters = parameters.encode()
        offers = tuple(SuiteOffer(number, suite.post_quantum) for number, suite in suites.items())

        def make_handshake(*, is_initiator: bool, expect: bytes | None = None) -> STTHandshake:
            return STTHandshake(
                is_initiator=is_initiator,
                identity=identity,
                keyring=keyring,
                parameters=encoded_parameters,
                suites=offers,
                require_post_quantum=config.require_post_quantum,
                ephemeral_keys=ephemeral_keys,
                expect=expect,
                random=random,
            )

        make_handshake(is_initiator=False)  # refuses settings that no handshake could run with
        self._ephemeral_keys = ephemeral_keys
        self._datagrams: list[tuple[Hashable, bytes]] = []
        self._events: list[HandshakeEvent] = []
        self._outgoing = OutgoingHandshakes(
            config,
            lambda expect: make_handshake(is_initiator=True, expect=expect),
            is_session_id_taken,
            self._datagrams,
            self._events,
        )
        self._incoming = IncomingHandshakes(
            config,
            lambda: make_handshake(is_initiator=False),
            is_session_id_taken,
            self._outgoing.has_nonce,
            self._datagrams,
            self._events,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._outgoing)} outgoing, {len(self._incoming)} incoming>"

    # Inputs

    def receive_frame(self, frame: RawFrame, path: Hashable, now: float) -> None:
        """Take a frame of type 0x01 to 0x04.

        Args:
            frame: As it came; nothing of it is kept.
            path: Where it came from, and where answers go.
            now: Seconds.
        """
        try:
            self._receive_frame(frame, path, now)
        except HandshakeError as error:
            self._events.append(HandshakeDropped(path, error.reason))

    def keep_early(self, frame: RawFrame, path: Hashable) -> bool:
        """Keep a sealed frame of no known session, if one may come about on the path that it belongs to.

        Returns:
            Whether it was kept: it is in ``early_frames`` of :class:`HandshakeCompleted` when its session is accepted.
        """
        return self._incoming.keep_early(frame, path)

    def handle_timeout(self, now: float) -> None:
        """Repeat what is unanswered, give up what is too old, erase keys whose time is over."""
        self._ephemeral_keys.advance(now)
        self._outgoing.handle_timeout(now)
        self._incoming.handle_timeout(now)

    def path_lost(self, path: Hashable, text: str, now: float) -> None:
        """Learn that nobody is reached on a path: what this node began there fails as unreachable."""
        self._outgoing.path_lost(path, text, now)

    # Commands

    def connect(self, path: Hashable, now: float, expect: bytes | None = None) -> int:
        """Begin a handshake; return the key that events name it by.

        On one path at most ``half_open_limit_per_address`` of them run at a time, since a peer of the same settings
        drops more; others wait for their turn. Each is given up ``handshake_timeout`` from now.

        Args:
            path: Where the peer is.
            now: Seconds.
            expect: The node id that the peer must have.

        Raises:
            ConfigError: ``expect`` is no node id.
        """
        return self._outgoing.connect(path, now, expect)

    def cancel(self, key: int, now: float) -> None:
        """Drop a handshake that this node began; no event follows. A key that is over is ignored."""
        self._outgoing.cancel(key, now)

    def confirmed(self, session_id: bytes, now: float) -> None:
        """Learn that a sealed frame of the session has opened: RESPONSE has arrived. Other ids are ignored."""
        self._outgoing.confirmed(session_id, now)

    def accept(self, session_id: bytes) -> bool:
        """Send CONFIRM; return whether the handshake still waited for it, which it does until its time-out."""
        return self._incoming.accept(session_id)

    def refuse(self, session_id: bytes) -> None:
        """Drop the handshake without CONFIRM; to tell the peer is the session's part."""
        self._incoming.refuse(session_id)

    # Outputs

    def datagrams_to_send(self) -> list[tuple[Hashable, bytes]]:
        """Return (path, datagram) pairs, each once, of at most 1200 bytes; they go before any sealed frame."""
        datagrams = self._datagrams.copy()
        self._datagrams.clear()
        return datagrams

    def next_timeout(self) -> float | None:
        """Return when to call :meth:`handle_timeout`, if ever."""
        soonest = self._ephemeral_keys.expires_at
        for at in (self._outgoing.next_timeout(), self._incoming.next_timeout()):
            if at is not None and (soonest is None or at < soonest):
                soonest = at
        return soonest

    @property
    def has_datagrams(self) -> bool:
        """Whether :meth:`datagrams_to_send` would return any."""
        return bool(self._datagrams)

    @property
    def has_output(self) -> bool:
        """Whether there are datagrams or events to drain."""
        return bool(self._datagrams or self._events)

    def events(self) -> list[HandshakeEvent]:
        """Return what happened, each once, in order."""
        events = self._events.copy()
        self._events.clear()
        return events

    # Internals

    def _receive_frame(self, frame: RawFrame, path: Hashable, now: float) -> None:
        match frame.type:
            case FrameType.HANDSHAKE_INIT:
                self._ephemeral_keys.advance(now)
                self._incoming.receive_init(frame, path, now)
            case FrameType.HANDSHAKE_CHALLENGE:
                self._outgoing.receive_challenge(frame, path, now)
            case FrameType.HANDSHAKE_RESPONSE:
                self._incoming.receive_response(frame, path, now)
            case FrameType.HANDSHAKE_CONFIRM:
                self._outgoing.receive_confirm(frame, path, now)
            case other:
                raise HandshakeError(f"type {other:#04x} is no handshake frame")
