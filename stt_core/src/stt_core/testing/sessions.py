"""Sessions without a handshake, nodes without I/O, and a peer that has the keys but none of the manners."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults.controllers import NewReno
from stt_core.defaults.suites import SUITES
from stt_core.engine import paths
from stt_core.engine.demux import Demux
from stt_core.engine.half_open import HalfOpenTable
from stt_core.engine.handshake import HandshakeResult
from stt_core.engine.keys import next_secret, stream_key
from stt_core.engine.session import Session
from stt_core.identity import Identity
from stt_core.interfaces.crypto import TAG_SIZE
from stt_core.seeds import Keyring
from stt_core.testing.link import ADDRESSES, DATAGRAMS, deliver
from stt_core.wire.frame import HEADER, MAGIC, encode_frame, split_frames
from stt_core.wire.messages import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.transport import Buffer, Train, TransportCapabilities
    from stt_core.testing.link import End, Event
    from stt_core.wire.frame import RawFrame

SESSION_ID: Final = b"testing!"
"""The id of every session made here."""

SHARED_SEED: Final = b"the shared seed of everybody who tests"
"""What the nodes made here have in common."""

_SECRETS: Final = (b"\1" * 32, b"\2" * 32)  # of the initiator's direction, and of the responder's
_EXPORTER_SECRET: Final = b"\3" * 32


def make_session(  # noqa: PLR0913  what a session is made of, by name
    *,
    is_initiator: bool,
    config: STTConfig | None = None,
    peer_config: STTConfig | None = None,
    controller: ControllerFactory = NewReno,
    suite: CryptoSuite = SUITES[1],
    capabilities: TransportCapabilities = DATAGRAMS,
    now: float = 0.0,
    confirmed: bool = True,
    custom: Mapping[int, bool] = MappingProxyType({}),
) -> Session:
    """Return one end of a session, as the handshake would have left it, with keys that every test knows.

    Args:
        is_initiator: Which end; the initiator is at the first of :data:`~stt_core.testing.link.ADDRESSES`.
        config: Its settings.
        peer_config: The settings of the other end, which its parameters tell; by default the same.
        controller: What makes congestion controllers.
        suite: What seals.
        capabilities: What the transport promises.
        now: Seconds.
        confirmed: Whether the initiator has had its CONFIRM; without it, it waits for a frame of the responder.
        custom: The codes of custom frame types that it receives, and whether each is reliable.
    """
    config = config or STTConfig()
    peer_config = peer_config or config
    result = HandshakeResult(
        session_id=SESSION_ID,
        peer_node_id=bytes(32),
        peer_public_key=bytes(32),
        suite=1,
        peer_parameters=_parameters(peer_config),
        is_initiator=is_initiator,
        initiator_secret=_SECRETS[0],
        responder_secret=_SECRETS[1],
        exporter_secret=_EXPORTER_SECRET,
    )
    path = paths.PathKey(paths.Link("sim://", capabilities), ADDRESSES[1 if is_initiator else 0])
    session = Session(result, suite=suite, config=config, controller=controller, path=path, now=now, custom=custom)
    if confirmed:
        session.confirmed()
    return session


def session_pair(
    *,
    config: STTConfig | None = None,
    responder_config: STTConfig | None = None,
    controller: ControllerFactory = NewReno,
    suite: CryptoSuite = SUITES[1],
    capabilities: TransportCapabilities = DATAGRAMS,
    now: float = 0.0,
    confirmed: bool = True,
    custom: Mapping[int, bool] = MappingProxyType({}),
) -> tuple[Session, Session]:
    """Return the initiator's and the responder's end of one session, to be joined by a link.

    Args:
        config: The settings of both, or of the initiator alone.
        responder_config: Those of the responder, where they are others.
        controller: See :func:`make_session`, as for all that follow.
        suite: As above.
        capabilities: As above.
        now: As above.
        confirmed: As above.
        custom: As above, at both ends.
    """
    config = config or STTConfig()
    responder_config = responder_config or config
    initiator, responder = (
        make_session(
            is_initiator=is_initiator,
            config=own,
            peer_config=peer,
            controller=controller,
            suite=suite,
            capabilities=capabilities,
            now=now,
            confirmed=confirmed,
            custom=custom,
        )
        for is_initiator, own, peer in ((True, config, responder_config), (False, responder_config, config))
    )
    return initiator, responder


def make_half_open(
    name: str,
    *,
    config: STTConfig | None = None,
    shared_seed: bytes = SHARED_SEED,
    is_session_id_taken: Callable[[bytes], bool] = {}.__contains__,
) -> HalfOpenTable:
    """Return the handshakes of a node.

    Args:
        name: Whose: who has the same name is the same node.
        config: Its settings.
        shared_seed: What its peers have as well.
        is_session_id_taken: Whether a session of the node has that id.
    """
    config = config or STTConfig()
    return HalfOpenTable(
        identity=Identity.from_seed(name.encode().ljust(32, b".")),
        keyring=Keyring.from_seeds(shared_seed),
        config=config,
        suites={1: SUITES[1]},
        parameters=_parameters(config),
        is_session_id_taken=is_session_id_taken,
    )


def make_demux(
    name: str,
    *,
    config: STTConfig | None = None,
    shared_seed: bytes = SHARED_SEED,
    controller: ControllerFactory = NewReno,
) -> Demux:
    """Return the engine of a whole node.

    Args:
        name: See :func:`make_half_open`, as for the next two.
        config: As above.
        shared_seed: As above.
        controller: What makes congestion controllers.
    """
    config = config or STTConfig()
    sessions: dict[bytes, Session] = {}
    half_open = make_half_open(name, config=config, shared_seed=shared_seed, is_session_id_taken=sessions.__contains__)
    return Demux(half_open, {1: SUITES[1]}, config, controller, sessions)


class RoguePeer:
    """One end of a session that seals whatever it likes, and reads what it is told.

    Args:
        is_initiator: Which end it is.
        session_id: The session, if it is not from :func:`make_session`.
        secrets: The first secrets of the initiator's and the responder's direction, as above.
        suite: What the session seals with.
    """

    def __init__(
        self,
        *,
        is_initiator: bool,
        session_id: bytes = SESSION_ID,
        secrets: tuple[bytes, bytes] = _SECRETS,
        suite: CryptoSuite = SUITES[1],
    ) -> None:
        self._session_id = session_id
        self._suite = suite
        own = 0 if is_initiator else 1
        self._secrets = [secrets[own]]
        self._peer_secrets = [secrets[1 - own]]
        self.next_number = 0
        """The number of the next frame, unless it is given one."""

    # Commands

    def seal(
        self,
        frame_type: int,
        plaintext: Buffer = b"",
        *,
        stream_id: int = 0,
        number: int | None = None,
        epoch: int = 0,
        flags: int | None = None,
    ) -> bytes:
        """Return a frame that opens at the other end.

        Args:
            frame_type: From 1 to 255.
            plaintext: Any bytes.
            stream_id: Any.
            number: By default the next one.
            epoch: The epoch of the key.
            flags: By default what the epoch asks for.
        """
        if number is None:
            number = self.next_number
        self.next_number = max(self.next_number, number + 1)
        key, iv = stream_key(_secret(self._secrets, epoch), stream_id)
        flags = epoch & 3 if flags is None else flags
        sequence = number & 0xFFFFFFFF
        size = len(plaintext) + TAG_SIZE
        header = HEADER.pack(MAGIC, frame_type, self._session_id, stream_id, sequence, flags, size)
        sealed = self._suite.cipher(key).encrypt((iv ^ number).to_bytes(12, "big"), bytes(plaintext), header)
        return encode_frame(frame_type, self._session_id, stream_id, sequence, flags, sealed[:size], sealed[size:])

    def send(
        self,
        victim: Session,
        frame_type: int,
        plaintext: Buffer = b"",
        *,
        stream_id: int = 0,
        number: int | None = None,
        epoch: int = 0,
        now: float = 0.0,
    ) -> bytes:
        """Seal a frame and hand it to a session; return it."""
        frame = self.seal(frame_type, plaintext, stream_id=stream_id, number=number, epoch=epoch)
        deliver(victim, frame, now=now)
        return frame

    # Queries

    def read(self, trains: Iterable[tuple[paths.PathKey, Train]]) -> list[tuple[int, int, int, bytes]]:
        """Return number, type, stream id and plaintext of all frames in what the other end sent.

        Raises:
            AssertionError: One of them does not open.
        """
        return [
            self._open(frame) for _, train in trains for segment in train.segments() for frame in split_frames(segment)
        ]

    # Internals

    def _open(self, frame: RawFrame) -> tuple[int, int, int, bytes]:
        # Tests send far fewer than 2^32 frames, and rotate seldom.
        number = frame.sequence
        for epoch in range(frame.flags, 16, 4):
            key, iv = stream_key(_secret(self._peer_secrets, epoch), frame.stream_id)
            sealed = bytes(frame.payload) + bytes(frame.metadata)
            try:
                plaintext = self._suite.cipher(key).decrypt(
                    (iv ^ number).to_bytes(12, "big"), sealed, bytes(frame.header)
                )
            except InvalidTag:
                continue
            return number, frame.type, frame.stream_id, plaintext
        raise AssertionError(f"{frame!r} does not open")


class Inbox:
    """An application that reads every stream of two joined sessions, and ends its side when the peer does.

    To be given to a link as ``on_event``.
    """

    def __init__(self) -> None:
        self._data: dict[tuple[End, int], bytearray] = {}
        self._ended: set[tuple[End, int]] = set()

    def __call__(self, end: End, event: Event) -> None:
        """Read, if there is something to read."""
        if not isinstance(end, Session) or not isinstance(event, events.StreamReadable):
            return
        stream = end.stream(event.stream_id)
        if stream is None:
            return
        data = self._data.setdefault((end, event.stream_id), bytearray())
        while part := end.read(event.stream_id, 1 << 20):
            data += part
        if stream.receiving.at_end:
            self._ended.add((end, event.stream_id))
            end.end_stream(event.stream_id)

    def data(self, end: End, stream_id: int = 1) -> bytes:
        """Return what has come to an end on a stream."""
        return bytes(self._data.get((end, stream_id), b""))

    def has_ended(self, end: End, stream_id: int = 1) -> bool:
        """Return whether an end has read a stream to its end."""
        return (end, stream_id) in self._ended


def _secret(secrets: list[bytes], epoch: int) -> bytes:
    while len(secrets) <= epoch:
        secrets.append(next_secret(secrets[-1]))
    return secrets[epoch]


def _parameters(config: STTConfig) -> Parameters:
    return Parameters(
        credit=(config.session_credit, config.stream_credit, config.max_streams),
        idle=round(config.idle_timeout * 1000),
        max_frame=config.max_frame_size,
        padding=config.padding,
        app=config.app_parameters,
    )
