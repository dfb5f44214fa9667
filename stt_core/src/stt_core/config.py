"""Every tunable of a node, with its unit and the reason for its default."""

from __future__ import annotations

from typing import Any

import attrs

from stt_core.errors import ConfigError

MIN_SEED_SIZE = 32
"""Bytes that a seed has at least: the strength of the ciphers, since a recorded INIT lets a weak one be guessed."""

MAX_FRAME_SIZE = 2 * 1024 * 1024
"""Bytes of the largest frame there can be (wire format, section 1)."""


def _at_least(minimum: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[float], value: float) -> None:
        if not value >= minimum:
            raise ConfigError(f"{attribute.name} is {value!r}, but must be at least {minimum}")

    return check


def _between(minimum: float, maximum: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[float], value: float) -> None:
        if not minimum <= value <= maximum:
            raise ConfigError(f"{attribute.name} is {value!r}, but must be from {minimum} to {maximum}")

    return check


@attrs.frozen(kw_only=True)
class STTConfig:
    """The settings of a node; immutable, and refused when built wrong.

    Raises:
        ConfigError: A value is out of its range.
    """

    # Handshake

    handshake_timeout: float = attrs.field(default=10.0, validator=_at_least(0.1))
    """Seconds until an unanswered handshake is given up."""

    handshake_retry_interval: float = attrs.field(default=0.25, validator=_at_least(0.01))
    """Seconds until the first repetition of an unanswered message; doubles each time."""

    half_open_limit: int = attrs.field(default=1024, validator=_at_least(1))
    """Handshakes in progress that peers may cause; beyond it a new INIT is dropped."""

    half_open_limit_per_address: int = attrs.field(default=16, validator=_at_least(1))
    """As ``half_open_limit``, from one address."""

    replay_memory: int = attrs.field(default=65_536, validator=_at_least(1))
    """INITs that are remembered once answered, so that a recorded one costs no public-key work (7 MB when full)."""

    ephemeral_key_lifetime: float = attrs.field(default=1.0, validator=_between(0.0, 1.0))
    """Seconds for which a responder uses one ephemeral key pair, to spare its making in a burst of handshakes."""

    shared_seed_limit: int = attrs.field(default=4, validator=_between(1, 64))
    """Shared seeds that a keyring may hold: a stranger's INIT costs two hashes for each."""

    suites: tuple[int, ...] | None = attrs.field(default=None)
    """Suite numbers by preference; None offers 0x0001 and 0x0002, the one that this processor does faster first."""

    require_post_quantum: bool = True
    """Refuse suites whose handshake does not mix ML-KEM-768 in, on both sides."""

    authorize_timeout: float = attrs.field(default=5.0, validator=_at_least(0.01))
    """Seconds that plugins have to let a peer in; no answer is a refusal."""

    max_sessions_per_peer: int = attrs.field(default=64, validator=_at_least(1))
    """Sessions that one node id may have with this node; beyond it a new one is refused."""

    # Session

    idle_timeout: float = attrs.field(default=30.0, validator=_at_least(0.1))
    """Seconds without a frame of the peer after which a session ends; the smaller of both sides' holds."""

    keepalive: bool = False
    """Send a KEEPALIVE after a third of the idle timeout without traffic, so that an idle session stays."""

    max_sessions: int = attrs.field(default=100_000, validator=_at_least(1))
    """Sessions that a node holds; beyond it an INIT is dropped."""

    max_frame_size: int = attrs.field(default=MAX_FRAME_SIZE, validator=_between(1200, MAX_FRAME_SIZE))
    """Bytes of the largest frame that this node accepts."""

    session_credit: int = attrs.field(default=16 * 1024 * 1024, validator=_at_least(1))
    """Bytes that a peer may have sent on all streams of a session ahead of their reading."""

    stream_credit: int = attrs.field(default=8 * 1024 * 1024, validator=_at_least(1))
    """Bytes that a peer may have sent on one stream ahead of its reading: 320 MB/s at 25 ms of round trip."""

    max_streams: int = attrs.field(default=256, validator=_between(1, 65_536))
    """Streams that a peer may have open at a time."""

    send_buffer_size: int = attrs.field(default=4 * 1024 * 1024, validator=_at_least(1))
    """Bytes that one stream keeps until they are acknowledged; ``send`` waits beyond it."""

    datagram_queue_size: int = attrs.field(default=256, validator=_at_least(1))
    """Datagrams that wait in each direction; beyond it the oldest is dropped and counted."""

    max_message_size: int = attrs.field(default=65_536, validator=_between(1024, MAX_FRAME_SIZE))
    """Bytes of the longest reliable message; a peer may have 256 of them unhandled."""

    max_body_size: int = attrs.field(default=16 * 1024 * 1024, validator=_at_least(1024))
    """Bytes of the longest body of an endpoint's request or reply that this node takes."""

    relay_endpoints: bool = False
    """Pass requests on to peers that announced an endpoint; bodies are readable here then."""

    replay_window: int = attrs.field(default=65_536, validator=_between(1024, 1 << 22))
    """Frame numbers behind the newest one in which a late frame is still taken (8 KiB at the most)."""

    rotate_after_bytes: int = attrs.field(default=1_000_000_000, validator=_at_least(1))
    """Plaintext bytes that a direction seals before it rotates its keys."""

    rotate_after_frames: int = attrs.field(default=100_000, validator=_at_least(1))
    """Frames that a direction seals before it rotates its keys; a suite's own limit holds where it is lower."""

    rotate_after_seconds: float = attrs.field(default=3600.0, validator=_at_least(1))
    """Seconds after which a direction rotates its keys."""

    padding: int = attrs.field(default=0, validator=_between(0, 65_536))
    """Pad plaintexts to a multiple of this many bytes, in both directions when either side asks; 0 does not."""

    app_parameters: bytes = attrs.field(default=b"")
    """Bytes that the peer's application sees once the handshake has proven this node; at most 512."""

    # Delivery

    congestion_controller: str = "bbr"
    """Name of the controller of unreliable paths; at one per cent of loss BBR keeps forty times the rate of CUBIC."""

    max_ack_delay: float = attrs.field(default=0.025, validator=_between(0.0, 1.0))
    """Seconds that an acknowledgement may wait for more to acknowledge (RFC 9000 section 18.2 has the same).

    The peer is taken to have the same: one that waits longer is asked again in vain.
    """

    max_datagram_size: int = attrs.field(default=65_507, validator=_between(1200, 65_507))
    """Bytes of the largest datagram to send; from 1200, probing finds out how much of it a path carries (RFC 8899)."""

    resume_timeout: float = attrs.field(default=60.0, validator=_at_least(0))
    """Seconds for which a session without a path is kept."""

    @app_parameters.validator
    def _check_app_parameters(self, _: object, value: bytes) -> None:
        if len(value) > 512:
            raise ConfigError(f"app_parameters has {len(value)} bytes, but at most 512 fit")

    @suites.validator
    def _check_suites(self, _: object, value: tuple[int, ...] | None) -> None:
        if value is not None and (not value or len(set(value)) != len(value) or len(value) > 255):
            raise ConfigError("suites must name 1 to 255 suites, each once")
