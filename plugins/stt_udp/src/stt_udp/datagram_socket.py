"""One non-blocking UDP socket: bursts in, trains out, and what the kernel said of both."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from stt_core.errors import LocalError, TransportError
from stt_udp.error_queue import read_errors
from stt_udp.options import UDP_SEGMENT, configure, receive_overflows
from stt_udp.statistics import UDPStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.transport import Address, Buffer
    from stt_udp.address import SocketAddress

MAX_MESSAGE_SIZE: Final = 65_507
"""Bytes of the largest datagram: 65,535 less the headers of IPv4 and UDP. A train in one call has no more either."""

BURST: Final = 256
"""Messages after which a burst ends, for other tasks to run: 377 kB at 1472 bytes."""

_SEGMENTS: Final = 64  # that one call may send: UDP_MAX_SEGMENTS of Linux 4.18; 128 since 6.9
_READ_SIZE: Final = 65_535  # the longest train that the kernel joins
_SEGMENT_SIZE: Final = struct.Struct("=H")
_TRAIN_SIZE: Final = struct.Struct("=i")
_CONTROL_SIZE: Final = 24  # CMSG_SPACE(sizeof(int))
_ATTEMPTS: Final = 4
_MEMORY: Final = 1024  # addresses remembered in each of the two tables below


def _codes(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# What the kernel says of an earlier datagram by failing the next call on the socket, whomever that one is for.
_PENDING: Final = _codes(
    "EACCES",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "EMSGSIZE",
    "ENETRESET",
    "ENETUNREACH",
    "ENONET",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "EPROTO",
)
# Of an error from the network: nobody listens there. Others, such as a missing route on the way, pass with an outage
# and end nothing, as RFC 1122 section 4.2.3.9 has it for TCP.
_HARD: Final = _codes("ECONNREFUSED", "EPROTO", "ENOPROTOOPT")
# Of an error from this host: there is no way out for that address.
_NO_ROUTE: Final = _codes("EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "EACCES", "EADDRNOTAVAIL")
# What a device that cannot checksum, a tunnel or a smaller MTU answers to a train to be cut (udp_send_skb of Linux).
_UNCUT: Final = _codes("EIO", "EINVAL", "EMSGSIZE")
_TRANSIENT: Final = _PENDING | _codes("ENOBUFS", "ENOMEM", "EPERM", "EINTR")

Messages: TypeAlias = list[tuple["Buffer", "Address"]]


class DatagramSocket:
    """The socket path, with no event loop in it; whoever drives it waits where it says so.

    Args:
        family: AF_INET or AF_INET6.
        address: Where to bind.
        report_unreachable: Called with an address that nobody listens at, or that no route leads to, and the reason.
            It must only note them.
        error_queue: Whether the network's reports are read. While one waits, poll(2) says that
            the socket is in error: whoever waits on it must take that for readable.

    Raises:
        OSError: The host refused.
    """

    __slots__ = (
        "_bytes_received",
        "_bytes_sent",
        "_control",
        "_control_segment_size",
        "_errors_received",
        "_granted",
        "_messages_dropped",
        "_messages_received",
        "_messages_sent",
        "_messages_too_large",
        "_report_unreachable",
        "_segmentation_fallbacks",
        "_segmenting",
        "_sendto",
        "_socket",
        "_trains_segmented",
        "_uncut",
        "send_waits",
    )

    def __init__(
        self,
        family: socket.AddressFamily,
        address: SocketAddress,
        report_unreachable: Callable[[Address, str], None],
        *,
        error_queue: bool,
    ) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._granted = configure(self._socket, error_queue=error_queue)
            self._socket.bind(address)
        except BaseException:
            self._socket.close()
            raise
        self._report_unreachable = report_unreachable
        # Typed by hand: an address is whatever this transport gave out, and mypy cannot know that here.
        self._sendto: Callable[..., int] = self._socket.sendto
        self._segmenting = self._granted.segmentation
        self._uncut: dict[Address, None] = {}
        self._control_segment_size = 0
        self._control: list[tuple[int, int, bytes]] = []
        self._messages_sent = self._bytes_sent = self._messages_dropped = self._messages_too_large = 0
        self._messages_received = self._bytes_received = 0
        self._trains_segmented = self._segmentation_fallbacks = self._errors_received = 0
        self.send_waits = 0
        """Times that the kernel's send buffer was full, as whoever waits for it counts them."""

    @property
    def address(self) -> SocketAddress:
        """Where it is bound."""
        address: SocketAddress = self._socket.getsockname()
        return address

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    # Inputs

    def read_burst(self) -> Messages:
        """Return the messages that have come, some ``BURST`` at most; none when there are none.

        Messages that came as one train share one address object.

        Raises:
            TransportError: The socket is of no more use.
        """
        messages: Messages = []
        try:
            if self._granted.coalescing:
                self._read_trains(messages)
            else:
                self._read_datagrams(messages)
        except BlockingIOError:
            # The loop also wakes for the error queue alone.
            if not messages:
                self.read_errors()
        except OSError as error:
            self.read_errors()
            if error.errno not in _TRANSIENT and not messages:
                raise TransportError(f"the UDP socket failed: {error.strerror}") from error
        self._messages_received += len(messages)
        return messages

    def read_errors(self) -> None:
        """Report the peers that the network says nobody listens at, each by its own address."""
        if not self._granted.error_queue:
            return
        for error in read_errors(self._socket):
            self._errors_received += 1
            if error.code in _HARD:
                self._report_unreachable(error.address, str(error))

    # Commands

    def send(self, data: Buffer, segment_size: int, address: Address) -> Buffer | None:
        """Send the messages of a train; the common case, in which the kernel takes all of them at once.

        Returns:
            What the kernel does not take now: the train itself, or a view of its rest; None when nothing remains.

        Raises:
            TransportError: The socket is of no more use.
            LocalError: The segment size is not positive.
        """
        size = len(data)
        try:
            if size <= segment_size:
                self._sendto(data, address)
                self._messages_sent += 1
            elif (
                self._segmenting
                and size <= MAX_MESSAGE_SIZE
                and size <= segment_size * _SEGMENTS
                and address not in self._uncut
            ):
                self._send_segmented(data, segment_size, address)
            else:
                return self._send_piecewise(data, segment_size, address)
        except BlockingIOError:
            return data
        except OSError:
            # Whatever it was, sending again tells it apart from an error that another datagram left behind.
            self.read_errors()
            return self._send_piecewise(data, segment_size, address)
        self._bytes_sent += size
        return None

    def drop(self, data: Buffer, segment_size: int) -> None:
        """Count the messages of a train as dropped."""
        self._messages_dropped += _count(data, segment_size)

    def statistics(self) -> UDPStatistics:
        """Return the counters; for the last time before :meth:`close`."""
        return UDPStatistics(
            messages_sent=self._messages_sent,
            messages_received=self._messages_received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            messages_dropped=self._messages_dropped,
            send_waits=self.send_waits,
            receive_buffer_size=self._granted.receive_buffer_size,
            send_buffer_size=self._granted.send_buffer_size,
            messages_too_large=self._messages_too_large,
            receive_overflows=receive_overflows(self._socket),
            segmentation=self._granted.segmentation,
            coalescing=self._granted.coalescing,
            trains_segmented=self._trains_segmented,
            segmentation_fallbacks=self._segmentation_fallbacks,
            errors_received=self._errors_received,
        )

    # Internals

    def _read_trains(self, messages: Messages) -> None:
        recvmsg = self._socket.recvmsg
        while len(messages) < BURST:
            # Fresh bytes, sliced: 0.24 us a message of 1472 bytes, against 0.33 when copied out of a buffer used again.
            # Views of them save 0.03 more, but each would keep its whole train in memory for as long as it is kept.
            data, control, _, address = recvmsg(_READ_SIZE, _CONTROL_SIZE)
            self._bytes_received += len(data)
            segment_size = _TRAIN_SIZE.unpack(control[0][2])[0] if control else len(data)
            if segment_size < len(data):
                messages += [(data[at : at + segment_size], address) for at in range(0, len(data), segment_size)]
            else:
                messages.append((data, address))

    def _read_datagrams(self, messages: Messages) -> None:
        recvfrom = self._socket.recvfrom
        while len(messages) < BURST:
            data, address = recvfrom(_READ_SIZE)
            self._bytes_received += len(data)
            messages.append((data, address))

    def _send_segmented(self, data: Buffer, segment_size: int, address: Address) -> None:
        if segment_size != self._control_segment_size:
            self._control = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(segment_size))]
            self._control_segment_size = segment_size
        sendmsg: Callable[..., int] = self._socket.sendmsg
        sendmsg((data,), self._control, 0, address)
        self._messages_sent += -(-len(data) // segment_size)
        self._trains_segmented += 1

    def _send_piecewise(self, data: Buffer, segment_size: int, address: Address) -> Buffer | None:
        """Send as :meth:`send` does, in as many calls as it takes, with an answer to every error."""
        if segment_size < 1:
            raise LocalError(f"a train of {len(data)} bytes has segments of {segment_size} bytes")
        rest = memoryview(data)
        segmenting = self._segmenting and address not in self._uncut
        refused = False
        while True:
            size = (
                max(1, min(_SEGMENTS, MAX_MESSAGE_SIZE // segment_size)) * segment_size if segmenting else segment_size
            )
            piece = rest[:size]
            code = self._send_piece(piece, segment_size, address)
            if code == errno.EAGAIN:
                return rest if len(rest) < len(data) else data
            if code in _UNCUT and len(piece) > segment_size:
                # The train, or its very messages? What becomes of the first one by itself tells.
                segmenting, refused = False, True
                continue
            if code == 0 and refused:
                self._remember_uncut(address)
                refused = False
            if code:
                piece = self._give_up(rest, piece, segment_size, address, code)
            rest = rest[len(piece) :]
            if not rest:
                return None

    def _send_piece(self, piece: memoryview, segment_size: int, address: Address) -> int:
        """Return 0 when it left, EAGAIN when the kernel takes nothing now, and else the error that is its own."""
        code = 0
        for _ in range(_ATTEMPTS):
            try:
                if len(piece) <= segment_size:
                    self._sendto(piece, address)
                    self._messages_sent += 1
                else:
                    self._send_segmented(piece, segment_size, address)
            except BlockingIOError:
                return errno.EAGAIN
            except OSError as error:
                code = error.errno or errno.EIO
                if code in (errno.EBADF, errno.ENOTSOCK):
                    raise TransportError(f"the UDP socket failed: {error.strerror}") from error
                if code not in _PENDING:
                    return code
                # Perhaps not about this message: the call cleared it, so that only an error of its own comes again.
                self.read_errors()
            else:
                self._bytes_sent += len(piece)
                return 0
        # No send to one peer is refused for another's sake, however many errors come in between.
        return errno.EAGAIN if code in _HARD else code

    def _give_up(
        self, rest: memoryview, piece: memoryview, segment_size: int, address: Address, code: int
    ) -> memoryview:
        """Count what cannot be sent, and return it: the piece, or all the rest where that would fare no better."""
        if code in _NO_ROUTE:
            self._report_unreachable(address, os.strerror(code))
            piece = rest
        elif code == errno.EMSGSIZE:
            piece = rest
            self._messages_too_large += _count(piece, segment_size)
        self.drop(piece, segment_size)
        return piece

    def _remember_uncut(self, address: Address) -> None:
        self._segmentation_fallbacks += 1
        if len(self._uncut) >= _MEMORY:
            del self._uncut[next(iter(self._uncut))]
        self._uncut[address] = None


def _count(data: Buffer, segment_size: int) -> int:
    return max(1, -(-len(data) // segment_size))
