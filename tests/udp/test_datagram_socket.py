from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from stt_core.errors import LocalError, TransportError
from stt_udp.datagram_socket import BURST, MAX_MESSAGE_SIZE, DatagramSocket
from stt_udp.options import UDP_GRO, UDP_SEGMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stt_core.interfaces.transport import Address, Buffer
    from stt_udp.address import SocketAddress

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
SO_NO_CHECK = 11


class PlainSocket(socket.socket):
    """A socket of a kernel that neither cuts nor joins trains."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if level == socket.IPPROTO_UDP and option in (UDP_SEGMENT, UDP_GRO):
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(level, option, *value)


class WhollyUnchecked(socket.socket):
    """A socket that sends no checksums: the kernel itself refuses to cut its trains, with EINVAL."""

    def bind(self, address: Any) -> None:
        self.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        super().bind(address)


class Scripted(socket.socket):
    """A socket whose next sends fail as a test says; an error of None is a send that works."""

    trains: ClassVar[list[int | None]] = []
    singles: ClassVar[list[int | None]] = []

    def sendmsg(self, *arguments: Any) -> int:
        _fail(self.trains)
        return super().sendmsg(*arguments)

    def sendto(self, *arguments: Any) -> int:
        _fail(self.singles)
        return super().sendto(*arguments)


def _fail(script: list[int | None]) -> None:
    code = script.pop(0) if script else None
    if code is not None:
        raise OSError(code, errno.errorcode[code])


class Bench:
    """Opens sockets, remembers what they report, and closes them."""

    def __init__(self, stack: ExitStack, host: str) -> None:
        self.stack = stack
        self.host = host
        self.unreachable: list[tuple[Address, str]] = []

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def open(self) -> DatagramSocket:
        sock = DatagramSocket(self.family, (self.host, 0), self.note, error_queue=True)
        self.stack.callback(sock.close)
        return sock

    def note(self, address: Address, reason: str) -> None:
        self.unreachable.append((address, reason))

    def gone(self) -> SocketAddress:
        """An address that nobody listens at."""
        with socket.socket(self.family, socket.SOCK_DGRAM) as sock:
            sock.bind((self.host, 0))
            address: SocketAddress = sock.getsockname()
            return address


@pytest.fixture
def bench(host: str) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, host)


@pytest.fixture
def ipv4() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, "127.0.0.1")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(socket, "socket", Scripted)
    monkeypatch.setattr(Scripted, "trains", [])
    monkeypatch.setattr(Scripted, "singles", [])
    return Scripted


@pytest.fixture(params=["trains", "plain"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once as the kernel is, once as one that knows no trains."""
    name: str = request.param
    if name == "plain":
        monkeypatch.setattr(socket, "socket", PlainSocket)
    return name


def wait_readable(sock: DatagramSocket) -> None:
    assert select.select([sock], [], [], 10)[0]


def read(sock: DatagramSocket, count: int) -> list[tuple[bytes, Address]]:
    messages: list[tuple[Buffer, Address]] = []
    while len(messages) < count:
        wait_readable(sock)
        messages += sock.read_burst()
    assert len(messages) == count
    return [(bytes(data), address) for data, address in messages]


def numbered(*sizes: int) -> list[bytes]:
    return [index.to_bytes(2, "big") * (size // 2) + b"\xff" * (size % 2) for index, size in enumerate(sizes)]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("size", [0, 1, 64, 1200, 1472, 8972, 65_488])
def test_message_arrives_whole_with_its_sender(bench: Bench, size: int) -> None:
    sender, receiver = bench.open(), bench.open()
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)

    assert sender.send(message, max(1, size), receiver.address) is None

    assert read(receiver, 1) == [(message, sender.address)]


@pytest.mark.usefixtures("kernel")
def test_largest_message_of_ipv4_arrives(ipv4: Bench) -> None:
    sender, receiver = ipv4.open(), ipv4.open()
    message = bytes(range(1, 256)) * 256 + bytes(227)
    assert len(message) == MAX_MESSAGE_SIZE

    sender.send(message, len(message), receiver.address)

    assert read(receiver, 1) == [(message, sender.address)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_sent(bench: Bench, kind: Callable[[bytes], Buffer]) -> None:
    sender, receiver = bench.open(), bench.open()

    assert sender.send(kind(b"abcdefg"), 3, receiver.address) is None

    assert [data for data, _ in read(receiver, 3)] == [b"abc", b"def", b"g"]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "sizes",
    [
        [1472] * 2,
        [1472] * 44,
        [1472] * 43 + [1],
        [1200] * 53 + [1199],
        [1] * 64,
        [64] * 65,
        [10] * 300,
        [1472] * 100 + [7],
        [32_000] * 5,
        [40_000] * 3 + [2],
    ],
    ids=lambda sizes: f"{len(sizes)}x{sizes[0]},{sizes[-1]}",
)
def test_train_arrives_as_the_messages_it_holds(bench: Bench, sizes: list[int]) -> None:
    sender, receiver = bench.open(), bench.open()
    messages = numbered(*sizes)

    assert sender.send(b"".join(messages), sizes[0], receiver.address) is None

    assert read(receiver, len(sizes)) == [(message, sender.address) for message in messages]
    statistics = sender.statistics()
    assert (statistics.messages_sent, statistics.bytes_sent) == (len(sizes), sum(sizes))
    assert statistics.messages_dropped == 0
    statistics = receiver.statistics()
    assert (statistics.messages_received, statistics.bytes_received) == (len(sizes), sum(sizes))


@on_linux
def test_train_that_fits_takes_one_call(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()

    sender.send(bytes(1472 * 44), 1472, receiver.address)
    sender.send(bytes(1200 * 100), 1200, receiver.address)
    sender.send(bytes(100), 1472, receiver.address)

    assert sender.statistics().trains_segmented == 1 + 2


def test_kernel_without_trains_is_used_without_them(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", PlainSocket)

    statistics = ipv4.open().statistics()

    assert not statistics.segmentation
    assert not statistics.coalescing


@on_linux
def test_messages_of_one_train_share_one_address_object(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    sender.send(bytes(30_000), 1000, receiver.address)
    wait_readable(receiver)

    messages = receiver.read_burst()

    assert len(messages) == 30
    assert len({id(address) for _, address in messages}) == 1


@pytest.mark.usefixtures("kernel")
def test_delivered_buffers_are_the_receivers_to_keep(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    sender.send(b"first " * 200, 600, receiver.address)
    wait_readable(receiver)
    kept = receiver.read_burst()

    sender.send(b"second" * 200, 600, receiver.address)
    read(receiver, 2)

    assert b"".join(bytes(data) for data, _ in kept) == b"first " * 200


@pytest.mark.usefixtures("kernel")
def test_bursts_are_bounded_so_that_other_tasks_run(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    for _ in range(16):
        sender.send(bytes(64 * 50), 50, receiver.address)
    wait_readable(receiver)

    sizes = []
    while burst := receiver.read_burst():
        sizes.append(len(burst))

    assert sum(sizes) == 16 * 64
    assert max(sizes) < BURST + 64
    assert len(sizes) >= 4


def test_reading_nothing_gives_an_empty_burst(bench: Bench) -> None:
    assert bench.open().read_burst() == []


@on_linux
@pytest.mark.usefixtures("kernel")
def test_only_the_peer_that_is_gone_is_reported(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    gone = bench.gone()
    sender.send(b"anyone?", 7, gone)
    wait_readable(sender)

    assert sender.read_burst() == []

    assert bench.unreachable == [(gone, f"Connection refused, says {bench.host}")]
    assert sender.statistics().errors_received == 1
    sender.send(b"hello", 5, receiver.address)
    assert read(receiver, 1) == [(b"hello", sender.address)]
    assert len(bench.unreachable) == 1


@on_linux
@pytest.mark.usefixtures("kernel")
def test_no_message_is_lost_to_the_errors_of_others(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    gone = [bench.gone() for _ in range(20)]

    for address in gone:
        assert sender.send(bytes(3000), 1000, address) is None
        assert sender.send(bytes(3000), 1000, receiver.address) is None

    assert len(read(receiver, 60)) == 60
    sender.read_errors()
    assert {address for address, _ in bench.unreachable} == set(gone)
    assert sender.statistics().messages_dropped == 0


@on_linux
def test_messages_are_read_past_a_pending_error(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    gone = bench.gone()
    receiver.send(b"anyone?", 7, gone)
    wait_readable(receiver)
    sender.send(b"hello", 5, receiver.address)

    assert read(receiver, 1) == [(b"hello", sender.address)]

    assert [address for address, _ in bench.unreachable] == [gone]


@on_linux
def test_what_may_pass_is_counted_and_ends_no_path(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutageSocket(socket.socket):
        errors: ClassVar[list[bytes]] = [struct.pack("=IBBBxII", errno.EHOSTUNREACH, 2, 3, 1, 0, 0)]

        def recvmsg(self, *arguments: Any) -> Any:
            if len(arguments) == 3 and self.errors:
                return b"", [(socket.IPPROTO_IP, 11, self.errors.pop())], 0, ("192.0.2.1", 4433)
            return super().recvmsg(*arguments)

    monkeypatch.setattr(socket, "socket", OutageSocket)
    sock = ipv4.open()

    sock.read_errors()

    assert sock.statistics().errors_received == 1
    assert ipv4.unreachable == []


def test_kernel_without_an_error_queue_tells_of_nobody_and_serves_others(
    ipv4: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OldSocket(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(socket, "socket", OldSocket)
    sender, receiver = ipv4.open(), ipv4.open()
    gone = ipv4.gone()

    for _ in range(10):
        sender.send(bytes(3000), 1000, gone)
        sender.send(bytes(3000), 1000, receiver.address)

    assert sender.read_burst() == []
    assert len(read(receiver, 30)) == 30
    assert ipv4.unreachable == []


def test_more_errors_of_others_than_are_waited_for_keep_the_message(ipv4: Bench, script: type[Scripted]) -> None:
    sender, receiver = ipv4.open(), ipv4.open()
    script.singles[:] = [errno.ECONNREFUSED] * 10

    message = b"hello"

    assert sender.send(message, 5, receiver.address) is message
    assert ipv4.unreachable == []
    assert sender.statistics().messages_dropped == 0


@on_linux
def test_datagram_larger_than_the_path_is_counted_and_not_fragmented(ipv6_host: str) -> None:
    # IPv6 on loopback: 65,536 bytes of MTU less 48 of headers.
    with ExitStack() as stack:
        bench = Bench(stack, ipv6_host)
        sender, receiver = bench.open(), bench.open()

        assert sender.send(bytes(65_489), 65_489, receiver.address) is None
        assert sender.send(bytes(3 * 65_489), 65_489, receiver.address) is None
        assert sender.send(bytes(65_488), 65_488, receiver.address) is None

        assert [len(data) for data, _ in read(receiver, 1)] == [65_488]
        statistics = sender.statistics()
        assert (statistics.messages_dropped, statistics.messages_too_large) == (4, 4)
        assert (statistics.messages_sent, statistics.bytes_sent) == (1, 65_488)
        assert bench.unreachable == []


@on_linux
def test_train_that_the_kernel_will_not_cut_is_sent_in_singles(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", WhollyUnchecked)
    sender, receiver = ipv4.open(), ipv4.open()
    messages = numbered(*[1000] * 9, 500)

    assert sender.send(b"".join(messages), 1000, receiver.address) is None
    assert sender.send(b"".join(messages), 1000, receiver.address) is None

    assert [data for data, _ in read(receiver, 20)] == messages * 2
    statistics = sender.statistics()
    assert (statistics.segmentation_fallbacks, statistics.trains_segmented) == (1, 0)
    assert (statistics.messages_sent, statistics.messages_dropped) == (20, 0)


@on_linux
def test_paths_that_take_no_trains_are_forgotten_from_the_oldest(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", WhollyUnchecked)
    sender = ipv4.open()
    addresses: list[SocketAddress] = [("127.0.0.1", port) for port in range(1, 1026)]
    for address in addresses:
        sender.send(bytes(20), 10, address)

    sender.send(bytes(20), 10, addresses[-1])
    assert sender.statistics().segmentation_fallbacks == 1025
    sender.send(bytes(20), 10, addresses[0])
    assert sender.statistics().segmentation_fallbacks == 1026


@on_linux
@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_refusal_of_a_train_concerns_one_path_only(ipv4: Bench, script: type[Scripted], code: int) -> None:
    sender, one, other = ipv4.open(), ipv4.open(), ipv4.open()
    # Twice for every send, as the first refusal may be of another's making; EMSGSIZE may be pending, so four times.
    script.trains[:] = [code] * (5 if code == errno.EMSGSIZE else 2)

    sender.send(bytes(3000), 1000, one.address)
    sender.send(bytes(3000), 1000, one.address)
    sender.send(bytes(3000), 1000, other.address)

    assert len(read(one, 6)) == 6
    assert len(read(other, 3)) == 3
    statistics = sender.statistics()
    assert (statistics.segmentation_fallbacks, statistics.trains_segmented) == (1, 1)


@on_linux
def test_train_of_messages_too_large_does_not_end_trains(ipv4: Bench, script: type[Scripted]) -> None:
    sender, receiver = ipv4.open(), ipv4.open()
    script.trains[:] = [errno.EINVAL] * 2
    script.singles[:] = [errno.EMSGSIZE] * 4

    assert sender.send(bytes(3000), 1000, receiver.address) is None
    assert sender.send(bytes(1800), 600, receiver.address) is None

    assert len(read(receiver, 3)) == 3
    statistics = sender.statistics()
    assert (statistics.messages_dropped, statistics.messages_too_large) == (3, 3)
    assert (statistics.segmentation_fallbacks, statistics.trains_segmented) == (0, 1)


@on_linux
def test_full_buffer_leaves_the_train_to_the_caller(bench: Bench, script: type[Scripted]) -> None:
    sender, receiver = bench.open(), bench.open()
    train = bytes(3000)
    script.trains[:] = [errno.EAGAIN]

    assert sender.send(train, 1000, receiver.address) is train
    assert sender.send(train, 1000, receiver.address) is None

    assert len(read(receiver, 3)) == 3


def test_full_buffer_leaves_an_empty_message_to_the_caller(bench: Bench, script: type[Scripted]) -> None:
    sender, receiver = bench.open(), bench.open()
    script.singles[:] = [errno.EAGAIN]
    message = b""

    assert sender.send(message, 1, receiver.address) is message
    assert sender.send(message, 1, receiver.address) is None

    assert read(receiver, 1) == [(b"", sender.address)]


def test_full_buffer_amid_a_train_gives_back_the_rest(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class FillsUp(PlainSocket):
        room = 7

        def sendto(self, *arguments: Any) -> int:
            if FillsUp.room == 0:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            FillsUp.room -= 1
            return super().sendto(*arguments)

    monkeypatch.setattr(socket, "socket", FillsUp)
    sender, receiver = ipv4.open(), ipv4.open()
    messages = numbered(*[100] * 9, 50)

    rest = sender.send(b"".join(messages), 100, receiver.address)

    assert rest is not None
    assert bytes(rest) == b"".join(messages[7:])
    FillsUp.room = 10
    assert sender.send(rest, 100, receiver.address) is None
    assert [data for data, _ in read(receiver, 10)] == messages


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.EPERM, errno.ENOMEM])
def test_what_the_host_refuses_is_counted_and_not_repeated(ipv4: Bench, script: type[Scripted], code: int) -> None:
    sender, receiver = ipv4.open(), ipv4.open()
    script.singles[:] = [code] * 2

    assert sender.send(b"lost", 4, receiver.address) is None
    assert sender.send(b"hello", 5, receiver.address) is None

    assert [data for data, _ in read(receiver, 1)] == [b"hello"]
    assert sender.statistics().messages_dropped == 1
    assert ipv4.unreachable == []


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_address_without_a_route_is_reported(
    ipv4: Bench, script: type[Scripted], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(socket, "socket", type("PlainScripted", (Scripted, PlainSocket), {}))
    sender, receiver = ipv4.open(), ipv4.open()
    script.singles[:] = [code] * 4

    assert sender.send(bytes(5000), 1000, receiver.address) is None

    ((address, reason),) = ipv4.unreachable
    assert address == receiver.address
    assert "unreachable" in reason or "No route" in reason
    assert sender.statistics().messages_dropped == 5


@pytest.mark.parametrize("size", [0, -1])
def test_segments_without_a_size_are_the_callers_mistake(bench: Bench, size: int) -> None:
    sender = bench.open()

    with pytest.raises(LocalError, match=f"3 bytes has segments of {size} bytes"):
        sender.send(b"abc", size, sender.address)


@on_linux
def test_messages_that_overflow_the_receive_buffer_are_counted(bench: Bench) -> None:
    sender, receiver = bench.open(), bench.open()
    for _ in range(200):
        sender.send(bytes(60_000), 60_000, receiver.address)

    received = 0
    while burst := receiver.read_burst():
        received += len(burst)

    overflows = receiver.statistics().receive_overflows
    assert overflows
    assert received + overflows == 200


def test_dropped_messages_are_counted_as_messages(bench: Bench) -> None:
    sock = bench.open()

    sock.drop(bytes(2500), 1000)
    sock.drop(b"", 1000)

    assert sock.statistics().messages_dropped == 4


def test_closed_socket_is_of_no_more_use(bench: Bench) -> None:
    sock = bench.open()
    address = sock.address
    sock.close()

    with pytest.raises(TransportError, match="the UDP socket failed: Bad file descriptor"):
        sock.send(b"hello", 5, address)
    with pytest.raises(TransportError, match="the UDP socket failed: Bad file descriptor"):
        sock.read_burst()


def test_messages_come_before_the_failure_that_followed_them(ipv4: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(PlainSocket):
        reads = 0

        def recvfrom(self, *arguments: Any) -> Any:
            Breaks.reads += 1
            if Breaks.reads > 1:
                raise OSError(errno.EBADF, "Bad file descriptor")
            return super().recvfrom(*arguments)

    monkeypatch.setattr(socket, "socket", Breaks)
    sender, receiver = ipv4.open(), ipv4.open()
    sender.send(b"hello", 5, receiver.address)
    wait_readable(receiver)

    assert receiver.read_burst() == [(b"hello", sender.address)]
    with pytest.raises(TransportError):
        receiver.read_burst()


def test_address_in_use_leaves_no_socket_open(bench: Bench) -> None:
    taken = bench.open().address

    with pytest.raises(OSError, match="in use"):
        DatagramSocket(bench.family, taken, bench.note, error_queue=True)


def test_addresses_of_a_burst_are_those_of_its_senders(bench: Bench) -> None:
    receiver = bench.open()
    senders = [bench.open() for _ in range(10)]
    for sender in senders:
        for _ in range(3):
            sender.send(b"hello", 5, receiver.address)

    counted = Counter(address for _, address in read(receiver, 30))

    assert counted == {sender.address: 3 for sender in senders}
