"""Everything that is measured, by name: STT over each transport, and the libraries that it is compared with."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.asyncssh import AsyncsshPeer
from benchmarks.peers.picows import PicowsPeer
from benchmarks.peers.quic import QuicPeer
from benchmarks.peers.stt import MemoryPeer, STTPeer
from benchmarks.peers.tls import TLSPeer
from benchmarks.peers.websockets import WebsocketsPeer
from benchmarks.peers.zmq import CurvePeer

if TYPE_CHECKING:
    from benchmarks.peers.base import Options, Peer


class Entry:
    """One row of the tables.

    Args:
        title: How it is called there.
        kind: What its ends are.
        distributions: What must be installed.
        loop: The event loop that it runs on.
        only: The measures that say something of it; None for all.
        settings: What ``kind`` is made with.
    """

    def __init__(
        self,
        title: str,
        kind: type[Peer],
        *distributions: str,
        loop: str = "asyncio",
        only: frozenset[str] | None = None,
        **settings: Any,
    ) -> None:
        self.title = title
        self.kind = kind
        self.distributions = distributions + (("uvloop",) if loop == "uvloop" else ())
        self.loop = loop
        self.only = only
        self.settings = settings

    def make(self, options: Options) -> Peer:
        """Make an end."""
        return self.kind(options, **self.settings)

    def missing(self) -> list[str]:
        """Return the distributions that are not installed."""
        return [name for name in self.distributions if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    return any(metadata.distributions(name=name))


_BULK_ONLY: Final = frozenset({"bulk"})

PEERS: Final[dict[str, Entry]] = {
    "stt-udp-1472": Entry(
        "STT udp://, 1472-byte datagrams", STTPeer, "stt-udp", only=_BULK_ONLY, scheme="udp", max_datagram_size=1472
    ),
    "stt-udp": Entry("STT udp://, MTU by probing", STTPeer, "stt-udp", scheme="udp"),
    "stt-udp-uvloop": Entry("STT udp://, on uvloop", STTPeer, "stt-udp", loop="uvloop", scheme="udp"),
    "stt-ws": Entry("STT ws://", STTPeer, "stt-websocket", scheme="ws"),
    "stt-memory": Entry("STT memory://, one process", MemoryPeer, "stt-core"),
    "tls-asyncio": Entry("TLS 1.3, asyncio", TLSPeer),
    "tls-uvloop": Entry("TLS 1.3, uvloop", TLSPeer, loop="uvloop"),
    "websockets": Entry("websockets over TLS", WebsocketsPeer, "websockets"),
    "picows": Entry("picows over TLS, uvloop", PicowsPeer, "picows", loop="uvloop"),
    "zmq": Entry("ZeroMQ CURVE", CurvePeer, "pyzmq"),
    "aioquic": Entry("aioquic", QuicPeer, "aioquic", library="aioquic"),
    "qh3": Entry("qh3", QuicPeer, "qh3", library="qh3"),
    "asyncssh": Entry("asyncssh", AsyncsshPeer, "asyncssh"),
}
