"""Do sender and receiver bring files over whole, or tell both sides why not, whatever the other side does?"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from typing import TYPE_CHECKING

import attrs
import pytest
import pytest_asyncio

from stt_core import ErrorCode, SessionClosed, StreamClosed, STTNode, STTSession, STTStream
from stt_streaming.transfer import receiver as receiver_module
from stt_streaming.transfer import sender as sender_module
from stt_streaming.transfer.inbox import Inbox
from stt_streaming.transfer.messages import STREAM_LABEL, Answer, Digest, Offer, TransferStatus
from stt_streaming.transfer.receiver import FILES_AT_ONCE, WRITE_SIZE, FileReceiver, ReceivedFile, SessionProgress
from stt_streaming.transfer.sender import READ_SIZE, UNCONFIRMED_LIMIT, FileSender, SentFile
from stt_streaming.transfer.streams import read_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio

NAMES = itertools.count()
UNSUPPORTED = TransferStatus.UNSUPPORTED.stream_code
CANCELLED = TransferStatus.CANCELLED.stream_code


def sha3(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


@attrs.define
class Sending:
    """The sending end of a session, and what its sender told."""

    session: STTSession
    stored: list[SentFile] = attrs.field(factory=list)
    failed: dict[str, str] = attrs.field(factory=dict)
    shown: list[tuple[str, int, int]] = attrs.field(factory=list)
    begun: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def send(self, *paths: Path) -> bool:
        sender = FileSender(
            self.session,
            progress=self._progress,
            stored=self.stored.append,
            failed=lambda path, error: self.failed.update({path.name: str(error)}),
        )
        return await sender.send(paths)

    @contextlib.contextmanager
    def _progress(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        steps: list[int] = []

        def advance(step: int) -> None:
            steps.append(step)
            self.begun.set()

        yield advance
        self.shown.append((name, size, sum(steps)))


@attrs.define
class Receiving:
    """The receiving end of a session, its folder, and what its receiver told."""

    session: STTSession
    folder: Path
    admitted: bool = True
    stored: list[ReceivedFile] = attrs.field(factory=list)
    failed: list[tuple[str, str]] = attrs.field(factory=list)
    progress: SessionProgress = attrs.field(factory=SessionProgress)

    async def serve(self) -> None:
        with Inbox(self.folder) as inbox:
            receiver = FileReceiver(
                inbox,
                stored=self.stored.append,
                failed=lambda _, name, error: self.failed.append((name, str(error))),
                admits=lambda _: self.admitted,
            )
            await receiver.serve(self.session, self.progress)

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@attrs.define
class Ends:
    """Both ends of one session."""

    sending: Sending
    receiving: Receiving


@pytest_asyncio.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    folder = tmp_path / "inbox"
    folder.mkdir()
    async with (
        STTNode(node_seed=b"1" * 32, shared_seed=b"s" * 32) as one,
        STTNode(node_seed=b"2" * 32, shared_seed=b"s" * 32) as two,
    ):
        [url] = await two.listen(f"memory://transfer-{next(NAMES)}")
        session = await one.connect(url)
        accepted = await anext(aiter(two.sessions()))
        yield Ends(Sending(session), Receiving(accepted, folder))


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def make(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


# Both ends


@pytest.mark.parametrize("size", [0, 1, READ_SIZE - 1, READ_SIZE, 3 * WRITE_SIZE + 17])
async def test_a_file_arrives_whole_and_both_sides_know(
    ends: Ends, source: Callable[[str, bytes], Path], size: int
) -> None:
    data = os.urandom(size)
    serving = asyncio.create_task(ends.receiving.serve())

    assert await ends.sending.send(source("two words é.bin", data))
    ends.sending.session.close()
    await serving

    assert ends.receiving.files == {"two words é.bin": data}
    (sent,), (received,) = ends.sending.stored, ends.receiving.stored
    assert (sent.name, sent.size, sent.sha3_256) == ("two words é.bin", size, sha3(data))
    assert (received.name, received.size, received.sha3_256) == ("two words é.bin", size, sha3(data))
    assert received.peer_node_id == ends.receiving.session.peer_node_id
    assert ends.sending.shown == [("two words é.bin", size, size)]
    assert ends.receiving.progress.complete


async def test_many_files_arrive_also_more_than_may_wait_for_their_confirmation(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    files = {f"{number}.txt": os.urandom(number * 1000) for number in range(4 * UNCONFIRMED_LIMIT)}
    serving = asyncio.create_task(ends.receiving.serve())

    assert await ends.sending.send(*(source(name, data) for name, data in files.items()))
    ends.sending.session.close()
    await serving

    assert ends.receiving.files == files
    assert [name for name, _, _ in ends.sending.shown] == list(files)


async def test_files_of_one_name_are_both_kept(
    ends: Ends, source: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    serving = asyncio.create_task(ends.receiving.serve())

    assert await ends.sending.send(source("a.txt", b"one"), source("other/a.txt", b"two"))
    ends.sending.session.close()
    await serving

    assert sorted(ends.receiving.files) == ["a (1).txt", "a.txt"]
    assert sorted(ends.receiving.files.values()) == [b"one", b"two"]
    assert [file.name for file in ends.sending.stored] == ["a.txt", "a.txt"]


async def test_one_file_that_fails_does_not_hinder_the_others(
    ends: Ends, source: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    assert not await ends.sending.send(source("a", b"a"), tmp_path / "missing", tmp_path, source("b", b"b"))
    ends.sending.session.close()
    await serving

    assert ends.receiving.files == {"a": b"a", "b": b"b"}
    assert set(ends.sending.failed) == {"missing", tmp_path.name}
    assert not ends.receiving.progress.complete


async def test_a_file_that_changes_while_it_is_sent_does_not_arrive(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    path = source("log", os.urandom(3 * READ_SIZE))
    serving = asyncio.create_task(ends.receiving.serve())
    sending = asyncio.create_task(ends.sending.send(path))

    await ends.sending.begun.wait()
    with path.open("ab") as file:
        file.write(b"more")
    assert not await sending
    ends.sending.session.close()
    await serving

    assert "changed while it was sent" in ends.sending.failed["log"]
    assert ends.receiving.files == {}
    assert ends.receiving.failed == [("log", "the file changed, or could not be read on, at the peer")]


async def test_a_disk_without_room_refuses_before_the_bytes_come(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    path = source("huge", b"")
    os.truncate(path, 1 << 43)
    serving = asyncio.create_task(ends.receiving.serve())

    assert not await ends.sending.send(path, source("small", b"x"))
    ends.sending.session.close()
    await serving

    assert "no room" in ends.sending.failed["huge"]
    assert ends.receiving.files == {"small": b"x"}


async def test_a_receiver_that_serves_another_sender_says_so(ends: Ends, source: Callable[[str, bytes], Path]) -> None:
    ends.receiving.admitted = False
    serving = asyncio.create_task(ends.receiving.serve())

    assert not await ends.sending.send(source("a", b"a"))
    ends.sending.session.close()
    await serving

    assert "another sender" in ends.sending.failed["a"]
    assert ends.receiving.files == {}


async def test_a_folder_that_went_away_is_told_to_the_sender(ends: Ends, source: Callable[[str, bytes], Path]) -> None:
    serving = asyncio.create_task(ends.receiving.serve())
    await asyncio.sleep(0)
    ends.receiving.folder.rmdir()

    assert not await ends.sending.send(source("a", b"a"))
    ends.sending.session.close()
    await serving

    assert "cannot be created" in ends.sending.failed["a"]


async def test_a_receiver_that_stops_leaves_nothing_and_its_sender_knows(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())
    path = source("big", b"")
    os.truncate(path, 1 << 28)
    sending = asyncio.create_task(ends.sending.send(path))
    await ends.sending.begun.wait()

    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    ends.receiving.session.close(CANCELLED, "the receiver was stopped")

    assert not await sending
    assert ends.sending.failed == {"big": "session closed by the peer: the receiver was stopped"}
    assert ends.receiving.files == {}


async def test_a_sender_that_stops_leaves_nothing_and_its_receiver_knows(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())
    path = source("big", b"")
    os.truncate(path, 1 << 28)
    sending = asyncio.create_task(ends.sending.send(path))
    await ends.sending.begun.wait()

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    ends.sending.session.close(CANCELLED, "the sender was stopped")
    await serving

    assert ends.receiving.files == {}
    assert len(ends.receiving.failed) == 1


# A receiver against a sender that does not keep the rules


async def offer_by_hand(session: STTSession, *parts: bytes, label: str = STREAM_LABEL) -> STTStream:
    stream = await session.open_stream(label=label)
    for part in parts:
        await stream.send(part)
    return stream


async def last_answer(stream: STTStream) -> Answer:
    answer = Answer.decode(await read_message(stream))
    if answer.status is TransferStatus.ACCEPTED:
        answer = Answer.decode(await read_message(stream))
    return answer


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"\x00\x00",), TransferStatus.MALFORMED),
        ((b"\xff\xff",), TransferStatus.MALFORMED),
        ((b"\x00\x03abc",), TransferStatus.MALFORMED),
        ((Digest(bytes(32)).encode(),), TransferStatus.MALFORMED),
        ((Offer(name="a", size=3).encode(), b"ab"), TransferStatus.MALFORMED),
        ((Offer(name="a", size=3).encode(), b"abc"), TransferStatus.MALFORMED),
        ((Offer(name="a", size=3).encode(), b"abc", b"\x00\x01\x00"), TransferStatus.MALFORMED),
        ((Offer(name="a", size=3).encode(), b"abc", Digest(sha3(b"abd")).encode()), TransferStatus.MISMATCH),
        ((Offer(name="a", size=1 << 60).encode(),), TransferStatus.NO_SPACE),
    ],
)
async def test_a_transfer_against_the_rules_is_refused_and_leaves_nothing(
    ends: Ends, parts: tuple[bytes, ...], status: TransferStatus
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(ends.sending.session, *parts)
    stream.end()
    answer = await last_answer(stream)
    ends.sending.session.close()
    await serving

    assert answer.status is status
    assert answer.text
    assert ends.receiving.files == {}
    assert len(ends.receiving.failed) == 1
    assert not ends.receiving.progress.complete


async def test_a_hostile_name_stays_in_the_folder(ends: Ends) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(
        ends.sending.session, Offer(name="../../\x1b[2J/..\\.evil", size=1).encode(), b"x", Digest(sha3(b"x")).encode()
    )
    answer = await last_answer(stream)
    ends.sending.session.close()
    await serving

    assert answer.status is TransferStatus.STORED
    assert ends.receiving.files == {"_evil": b"x"}


@pytest.mark.parametrize("label", ["", "stt-file/2", "video"])
async def test_a_stream_of_another_kind_is_broken_off(ends: Ends, label: str) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(ends.sending.session, b"x", label=label)
    with pytest.raises(StreamClosed) as caught:
        await stream.receive()
    ends.sending.session.close()
    await serving

    assert caught.value.code == UNSUPPORTED


async def test_a_stream_that_is_reset_leaves_nothing(ends: Ends) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(ends.sending.session, Offer(name="a", size=10).encode(), b"half")
    assert Answer.decode(await read_message(stream)).status is TransferStatus.ACCEPTED
    stream.reset(0xFFFFFFFF)
    with contextlib.suppress(StreamClosed):
        while await stream.receive():
            pass
    ends.sending.session.close()
    await serving

    assert ends.receiving.files == {}
    assert [name for name, _ in ends.receiving.failed] == ["a"]


async def test_a_session_has_a_bound_of_files_on_their_way(ends: Ends) -> None:
    serving = asyncio.create_task(ends.receiving.serve())

    for number in range(FILES_AT_ONCE):
        stream = await offer_by_hand(ends.sending.session, Offer(name=str(number), size=10).encode())
        assert Answer.decode(await read_message(stream)).status is TransferStatus.ACCEPTED
    stream = await offer_by_hand(ends.sending.session, Offer(name="one more", size=10).encode())

    assert Answer.decode(await read_message(stream)).status is TransferStatus.BUSY
    ends.sending.session.close()
    await serving
    assert ends.receiving.files == {}


async def test_a_session_whose_files_are_all_stored_is_closed_if_the_sender_forgets(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "FAREWELL_TIMEOUT", 0.01)
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(ends.sending.session, Offer(name="a", size=0).encode(), Digest(sha3(b"")).encode())
    assert (await last_answer(stream)).status is TransferStatus.STORED
    await serving

    assert (await ends.sending.session.wait_closed()).code == ErrorCode.NO_ERROR
    assert ends.receiving.progress.complete


# A sender against a receiver that does not keep the rules


async def answer_by_hand(session: STTSession, *parts: bytes, end: bool = True) -> STTStream:
    stream = await session.accept_stream()
    for part in parts:
        await stream.send(part)
    if end:
        stream.end()
    return stream


ACCEPTED = Answer(status=TransferStatus.ACCEPTED).encode()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "ended where a message was to come"),
        ((b"\x00\x01\x00",), "otherwise than a receiver"),
        ((b"SSH-2.0-x\r\n",), "otherwise than a receiver"),
        ((ACCEPTED,), "ended where a message was to come"),
        ((ACCEPTED, ACCEPTED), "accepted"),
        ((Answer(status=TransferStatus.BUSY).encode(),), "busy"),
        ((Answer(status=TransferStatus.NO_SPACE, text="full up").encode(),), "full up"),
        ((ACCEPTED, Answer(status=TransferStatus.MISMATCH, text="other bytes").encode()), "other bytes"),
        ((Answer(status=TransferStatus.STORED, sha3_256=bytes(32)).encode(),), "confirmed other bytes"),
    ],
)
async def test_an_answer_against_the_rules_is_no_success(
    ends: Ends, source: Callable[[str, bytes], Path], parts: tuple[bytes, ...], reason: str
) -> None:
    answering = asyncio.create_task(answer_by_hand(ends.receiving.session, *parts))

    assert not await ends.sending.send(source("a", b"content"))
    await answering

    assert reason in ends.sending.failed["a"]
    assert ends.sending.stored == []


async def test_a_peer_that_answers_nothing_is_taken_for_one_that_receives_no_files(
    ends: Ends, source: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "ANSWER_TIMEOUT", 0.01)

    assert not await ends.sending.send(source("a", b"content"))

    assert "receive no files" in ends.sending.failed["a"]


async def test_a_peer_that_breaks_off_in_the_middle_is_heard(ends: Ends, source: Callable[[str, bytes], Path]) -> None:
    path = source("big", b"")
    os.truncate(path, 1 << 30)
    sending = asyncio.create_task(ends.sending.send(path))

    stream = await answer_by_hand(ends.receiving.session, ACCEPTED, end=False)
    await stream.receive()
    stream.stop(TransferStatus.NO_SPACE.stream_code)
    await stream.send(Answer(status=TransferStatus.NO_SPACE, text="the disk is full now").encode())
    stream.end()

    assert not await sending
    assert ends.sending.failed == {"big": "the disk is full now"}


async def test_a_peer_that_resets_the_stream_is_heard(ends: Ends, source: Callable[[str, bytes], Path]) -> None:
    sending = asyncio.create_task(ends.sending.send(source("a", b"content")))

    stream = await ends.receiving.session.accept_stream()
    stream.reset(UNSUPPORTED)

    assert not await sending
    assert "takes no files" in ends.sending.failed["a"]


async def test_when_the_session_ends_the_files_that_are_left_fail_at_once(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    ends.receiving.session.close(0x1234, "no more today")
    await ends.sending.session.wait_closed()

    assert not await ends.sending.send(source("a", b"a"), source("b", b"b"))

    assert set(ends.sending.failed) == {"a", "b"}
    assert "no more today" in ends.sending.failed["a"]
    with pytest.raises(SessionClosed):
        await ends.sending.session.open_stream()
