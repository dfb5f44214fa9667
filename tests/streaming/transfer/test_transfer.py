"""Do sender and receiver bring files over whole, or tell both sides why not, whatever the other side does?"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import pytest_asyncio

from stt_core import ErrorCode, SessionClosed, StreamClosed, STTNode, STTSession, STTStream
from stt_streaming.transfer import receiver as receiver_module
from stt_streaming.transfer import sender as sender_module
from stt_streaming.transfer.inbox import Inbox
from stt_streaming.transfer.manifest import Entry, EntryKind, encode_manifest
from stt_streaming.transfer.messages import MAX_ENTRIES, STREAM_LABEL, Answer, Offer, PlanSize, TransferStatus
from stt_streaming.transfer.rate import RateLimit
from stt_streaming.transfer.receiver import ITEMS_AT_ONCE, FileReceiver, ReceivedItem, SessionProgress
from stt_streaming.transfer.records import CHUNK_SIZE, encode_chunk_head, encode_file_start
from stt_streaming.transfer.sender import UNCONFIRMED_LIMIT, FileSender, SentItem
from stt_streaming.transfer.stored import STORED_FOLDER
from stt_streaming.transfer.streams import read_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
    stored: list[SentItem] = attrs.field(factory=list)
    failed: dict[str, str] = attrs.field(factory=dict)
    shown: list[tuple[str, int, int]] = attrs.field(factory=list)
    begun: asyncio.Event = attrs.field(factory=asyncio.Event)
    _awaited: list[tuple[int, asyncio.Event]] = attrs.field(factory=list)

    async def reached(self, size: int) -> None:
        """Wait until so many bytes of one item were shown."""
        self._awaited.append((size, event := asyncio.Event()))
        await event.wait()

    async def send(self, *paths: Path, **options: Any) -> bool:
        sender = FileSender(
            self.session,
            **options,
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
            for awaited, event in self._awaited:
                if sum(steps) >= awaited:
                    event.set()

        yield advance
        self.shown.append((name, size, sum(steps)))


@attrs.define
class Receiving:
    """The receiving end of a session, its folder, and what its receiver told."""

    session: STTSession
    folder: Path
    admitted: bool = True
    stored: list[ReceivedItem] = attrs.field(factory=list)
    failed: list[tuple[str, str]] = attrs.field(factory=list)
    progress: SessionProgress = attrs.field(factory=SessionProgress)

    async def serve(self, **options: Any) -> None:
        with Inbox(self.folder) as inbox:
            receiver = FileReceiver(
                inbox,
                **options,
                stored=self.stored.append,
                failed=lambda _, name, error: self.failed.append((name, str(error))),
                admits=lambda _: self.admitted,
            )
            await receiver.serve(self.session, self.progress)

    @property
    def files(self) -> dict[str, bytes]:
        """The files under their names; what is hidden does not count."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}

    @property
    def unfinished(self) -> list[Path]:
        return list(self.folder.glob(".stt-*.part"))


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


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 3 * CHUNK_SIZE + 17])
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

    os.mkfifo(tmp_path / "pipe")
    paths = (tmp_path / "missing", tmp_path / "pipe")
    assert not await ends.sending.send(source("a", b"a"), *paths, source("b", b"b"))
    ends.sending.session.close()
    await serving

    assert ends.receiving.files == {"a": b"a", "b": b"b"}
    assert set(ends.sending.failed) == {"missing", "pipe"}
    assert not ends.receiving.progress.complete


async def test_a_file_that_changes_while_it_is_sent_does_not_arrive(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    path = source("log", os.urandom(3 * CHUNK_SIZE))
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


async def test_a_receiver_that_stops_keeps_what_came_and_its_sender_knows(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())
    path = source("big", os.urandom(64 * CHUNK_SIZE))
    sending = asyncio.create_task(ends.sending.send(path, limit=RateLimit(40 * CHUNK_SIZE)))
    await ends.sending.reached(10 * CHUNK_SIZE)

    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    ends.receiving.session.close(CANCELLED, "the receiver was stopped")

    assert not await sending
    assert ends.sending.failed == {"big": "session closed by the peer: the receiver was stopped"}
    assert ends.receiving.files == {}
    assert len(ends.receiving.unfinished) == 1


@pytest.mark.parametrize("resume", [True, False])
async def test_what_came_of_a_sender_that_stops_is_kept_if_it_is_to_be_resumed(
    ends: Ends, source: Callable[[str, bytes], Path], *, resume: bool
) -> None:
    serving = asyncio.create_task(ends.receiving.serve())
    path = source("big", os.urandom(64 * CHUNK_SIZE))
    sending = asyncio.create_task(ends.sending.send(path, limit=RateLimit(40 * CHUNK_SIZE), resume=resume))
    await ends.sending.reached(10 * CHUNK_SIZE)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    ends.sending.session.close(CANCELLED, "the sender was stopped")
    await serving

    assert ends.receiving.files == {}
    assert len(ends.receiving.unfinished) == resume
    assert len(ends.receiving.failed) == 1


# Folders, parts and going on


def make_tree(root: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Return all files by their paths, besides the memory of what was stored."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {path: data for path, data in files.items() if not path.startswith(STORED_FOLDER)}


async def test_a_folder_arrives_whole_and_both_sides_know(ends: Ends, tmp_path: Path) -> None:
    contents = {f"{number % 7}/{number % 3}/{number}.bin": os.urandom(number * 50) for number in range(200)}
    tree = make_tree(tmp_path / "tree", contents)
    serving = asyncio.create_task(ends.receiving.serve())

    assert await ends.sending.send(tree)
    ends.sending.session.close()
    await serving

    assert read_tree(ends.receiving.folder / "tree") == contents
    (sent,), (received,) = ends.sending.stored, ends.receiving.stored
    for told in (sent, received):
        assert (told.name, told.is_folder, told.files, told.resumed) == ("tree", True, 200, 0)
        assert told.size == sum(map(len, contents.values()))
    assert sent.sha3_256 == received.sha3_256
    assert ends.receiving.progress.complete
    assert not ends.receiving.progress.incomplete


async def test_a_part_of_a_folder_can_be_taken(ends: Ends, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a.jpg": b"one", "b.txt": b"two", "c/d.jpg": b"three"})
    serving = asyncio.create_task(ends.receiving.serve(wants=lambda path: path.endswith(".jpg")))

    assert await ends.sending.send(tree, make_tree(tmp_path, {"e.jpg": b"four"}) / "e.jpg")
    assert not await ends.sending.send(make_tree(tmp_path, {"f.txt": b"five"}) / "f.txt")
    ends.sending.session.close()
    await serving

    assert read_tree(ends.receiving.folder) == {"tree/a.jpg": b"one", "tree/c/d.jpg": b"three", "e.jpg": b"four"}
    assert "not wanted" in ends.sending.failed["f.txt"]
    assert sorted(item.files for item in ends.sending.stored) == [1, 2]


async def test_links_are_sent_if_both_sides_want_them(ends: Ends, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a/b": b"one"})
    (tree / "in").symlink_to("a/b")
    (tree / "out").symlink_to("../x")
    serving = asyncio.create_task(ends.receiving.serve(keep_links=True))

    assert await ends.sending.send(tree, keep_links=True)
    ends.sending.session.close()
    await serving

    assert sorted(path.name for path in (ends.receiving.folder / "tree").iterdir()) == ["a", "in"]
    assert str((ends.receiving.folder / "tree" / "in").readlink()) == "a/b"
    assert ends.receiving.stored[0].left_out == ("tree/out",)
    assert ends.receiving.progress.incomplete == 1


async def test_a_folder_with_something_unreadable_arrives_without_it_and_that_is_said(
    ends: Ends, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"0": os.urandom(3 * CHUNK_SIZE), "log": b"one", "z": b"two"})
    serving = asyncio.create_task(ends.receiving.serve())
    sending = asyncio.create_task(ends.sending.send(tree, limit=RateLimit(10 * CHUNK_SIZE)))

    await ends.sending.begun.wait()
    (tree / "log").write_bytes(b"more than before")
    assert not await sending
    ends.sending.session.close()
    await serving

    assert sorted(read_tree(ends.receiving.folder)) == ["tree/0", "tree/z"]
    assert [left_out.path for left_out in ends.sending.stored[0].left_out] == [str(tree / "log")]
    assert ends.receiving.stored[0].left_out == ("tree/log",)


@pytest_asyncio.fixture
async def restart(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Ends]]]:
    """Return a function that makes another session between the same two nodes."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    async with (
        STTNode(node_seed=b"1" * 32, shared_seed=b"s" * 32) as one,
        STTNode(node_seed=b"2" * 32, shared_seed=b"s" * 32) as two,
    ):
        [url] = await two.listen(f"memory://transfer-{next(NAMES)}")
        sessions = two.sessions()

        async def make() -> Ends:
            session = await one.connect(url)
            return Ends(Sending(session), Receiving(await anext(aiter(sessions)), folder))

        yield make


async def test_an_interrupted_transfer_goes_on_in_another_session(
    restart: Callable[[], Awaitable[Ends]], tmp_path: Path
) -> None:
    contents = {"a": os.urandom(20), "b/large": os.urandom(20 * CHUNK_SIZE), "c": b"last"}
    tree = make_tree(tmp_path / "tree", contents)
    first = await restart()
    serving = asyncio.create_task(first.receiving.serve())
    sending = asyncio.create_task(first.sending.send(tree, limit=RateLimit(40 * CHUNK_SIZE)))
    await first.sending.reached(5 * CHUNK_SIZE)
    first.sending.session.close(CANCELLED, "broken off")
    await serving
    assert not await sending

    second = await restart()
    serving = asyncio.create_task(second.receiving.serve())
    assert await second.sending.send(tree)
    second.sending.session.close()
    await serving

    assert read_tree(second.receiving.folder / "tree") == contents
    (sent,), (received,) = second.sending.stored, second.receiving.stored
    assert sent.resumed == received.resumed
    assert 4 * CHUNK_SIZE < sent.resumed < 20 * CHUNK_SIZE
    assert second.receiving.unfinished == []


async def test_what_was_stored_before_the_break_does_not_come_again(
    restart: Callable[[], Awaitable[Ends]], tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"a/large": os.urandom(3 * CHUNK_SIZE), "b": b"two"})
    empty, last = make_tree(tmp_path, {"empty": b"", "last": b"last"}) / "empty", tmp_path / "last"
    first = await restart()
    serving = asyncio.create_task(first.receiving.serve())
    assert await first.sending.send(tree, empty)
    first.sending.session.close(CANCELLED, "broken off")
    await serving

    second = await restart()
    serving = asyncio.create_task(second.receiving.serve())
    assert await second.sending.send(tree, empty, last)
    second.sending.session.close()
    await serving

    assert sorted(path.name for path in second.receiving.folder.iterdir()) == [STORED_FOLDER, "empty", "last", "tree"]
    size = 3 * CHUNK_SIZE + 3
    told = {item.name: (item.size, item.resumed, item.files) for item in second.sending.stored}
    assert told == {"tree": (size, size, 2), "empty": (0, 0, 1), "last": (4, 0, 1)}
    assert told == {item.name: (item.size, item.resumed, item.files) for item in second.receiving.stored}
    digests = {item.name: item.sha3_256 for item in second.sending.stored}
    assert digests == {item.name: item.sha3_256 for item in second.receiving.stored}
    assert digests.items() > {item.name: item.sha3_256 for item in first.sending.stored}.items()
    assert ("tree", size, size) in second.sending.shown
    assert second.receiving.progress.complete


async def test_other_bytes_with_the_same_size_and_time_are_sent(
    restart: Callable[[], Awaitable[Ends]], tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree", {"a": b"first version", "b": os.urandom(2 * CHUNK_SIZE)})
    first = await restart()
    serving = asyncio.create_task(first.receiving.serve())
    assert await first.sending.send(tree)
    first.sending.session.close()
    await serving
    status = (tree / "a").stat()
    (tree / "a").write_bytes(b"other version")
    os.utime(tree / "a", ns=(status.st_atime_ns, status.st_mtime_ns))

    second = await restart()
    serving = asyncio.create_task(second.receiving.serve())
    assert await second.sending.send(tree)
    second.sending.session.close()
    await serving

    assert (second.receiving.folder / "tree" / "a").read_bytes() == b"first version"
    assert read_tree(second.receiving.folder / "tree (1)") == read_tree(tree)
    (sent,), (received,) = second.sending.stored, second.receiving.stored
    assert (sent.resumed, sent.files, sent.sha3_256) == (0, 2, received.sha3_256)
    assert (received.name, received.resumed, received.size) == ("tree (1)", 0, sent.size)


async def test_without_resuming_the_same_file_comes_a_second_time(
    restart: Callable[[], Awaitable[Ends]], source: Callable[[str, bytes], Path]
) -> None:
    path = source("a", b"data")
    for resume in (True, False, True):
        ends = await restart()
        serving = asyncio.create_task(ends.receiving.serve())
        assert await ends.sending.send(path, resume=resume)
        ends.sending.session.close()
        await serving

    assert ends.receiving.files == {"a": b"data", "a (1)": b"data"}


async def test_a_sender_that_breaks_off_while_it_compares_is_no_success(
    restart: Callable[[], Awaitable[Ends]], source: Callable[[str, bytes], Path]
) -> None:
    path = source("a", os.urandom(8 * CHUNK_SIZE))
    first = await restart()
    serving = asyncio.create_task(first.receiving.serve())
    assert await first.sending.send(path)
    first.sending.session.close()
    await serving

    second = await restart()
    serving = asyncio.create_task(second.receiving.serve())
    sending = asyncio.create_task(second.sending.send(path))
    await second.sending.begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    second.sending.session.close(CANCELLED, "the sender was stopped")
    await serving

    assert second.receiving.stored == []
    assert [name for name, _ in second.receiving.failed] == ["a"]
    assert list(second.receiving.files) == ["a"]


async def test_a_newer_session_takes_an_item_over_from_one_that_seems_to_live(
    restart: Callable[[], Awaitable[Ends]], source: Callable[[str, bytes], Path]
) -> None:
    path = source("big", data := os.urandom(20 * CHUNK_SIZE))
    first, second = await restart(), await restart()
    with Inbox(first.receiving.folder) as inbox:
        receiver = FileReceiver(
            inbox,
            stored=first.receiving.stored.append,
            failed=lambda *failed: first.receiving.failed.append(failed[1:]),
        )
        serving = [
            asyncio.create_task(receiver.serve(ends.receiving.session, ends.receiving.progress))
            for ends in (first, second)
        ]
        sending = asyncio.create_task(first.sending.send(path, limit=RateLimit(40 * CHUNK_SIZE)))
        await first.sending.reached(5 * CHUNK_SIZE)

        assert await second.sending.send(path)
        assert not await sending
        second.sending.session.close()
        await asyncio.gather(*serving)

    assert first.receiving.files == {"big": data}
    assert "newer session" in first.sending.failed["big"]
    assert second.sending.stored[0].resumed > 3 * CHUNK_SIZE


async def test_the_same_item_twice_at_a_time_in_one_session_is_refused_once(
    ends: Ends, source: Callable[[str, bytes], Path]
) -> None:
    path = source("a", os.urandom(3 * CHUNK_SIZE))
    serving = asyncio.create_task(ends.receiving.serve())

    assert not await ends.sending.send(path, path, limit=RateLimit(20 * CHUNK_SIZE))
    ends.sending.session.close()
    await serving

    assert len(ends.sending.stored) == 1
    assert "on its way already" in ends.sending.failed["a"]


# A receiver against a sender that does not keep the rules


async def offer_by_hand(session: STTSession, *parts: bytes, label: str = STREAM_LABEL) -> STTStream:
    stream = await session.open_stream(label=label)
    for part in parts:
        await stream.send(part)
    return stream


def offer_of(name: str, size: int, /, **fields: Any) -> bytes:
    """Return the offer of a file and its manifest."""
    manifest = encode_manifest([Entry(kind=EntryKind.FILE, name=name, size=size)])
    offer = {"entries": 1, "manifest_size": len(manifest), "size": size, "disk_size": size} | fields
    return Offer(**offer).encode() + manifest


def chunk_of(data: bytes, sha3_256: bytes | None = None) -> bytes:
    """Return the records of the only file, in one chunk."""
    return encode_file_start(0, 0) + encode_chunk_head(len(data)) + data + (sha3_256 or sha3(data))


async def last_answer(stream: STTStream) -> Answer:
    answer = Answer.decode(await read_message(stream))
    if answer.status is TransferStatus.ACCEPTED:
        await stream.receive_exactly(PlanSize.decode(await read_message(stream)).size)
        answer = Answer.decode(await read_message(stream))
    return answer


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"\x00\x00",), TransferStatus.MALFORMED),
        ((b"\xff\xff",), TransferStatus.MALFORMED),
        ((b"\x00\x03abc",), TransferStatus.MALFORMED),
        ((PlanSize(1).encode(),), TransferStatus.MALFORMED),
        ((offer_of("a", 3)[:-1],), TransferStatus.MALFORMED),
        ((offer_of("a", 3, entries=2),), TransferStatus.MALFORMED),
        ((offer_of("a", 3, size=4),), TransferStatus.MALFORMED),
        ((offer_of("a", 3, entries=MAX_ENTRIES, manifest_size=1 << 26),), TransferStatus.MALFORMED),
        ((offer_of("a", 3), chunk_of(b"abc")[:-33]), TransferStatus.MISMATCH),
        ((offer_of("a", 3), chunk_of(b"abcd")), TransferStatus.MALFORMED),
        ((offer_of("a", 3), b"\x00"), TransferStatus.MALFORMED),
        ((offer_of("a", 3),), TransferStatus.MISMATCH),
        ((offer_of("a", 3), chunk_of(b"abc", sha3(b"abd"))), TransferStatus.MISMATCH),
        ((offer_of("a", 1 << 60),), TransferStatus.NO_SPACE),
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

    stream = await offer_by_hand(ends.sending.session, offer_of("../../\x1b[2J/..\\.evil", 1), chunk_of(b"x"))
    stream.end()
    answer = await last_answer(stream)
    ends.sending.session.close()
    await serving

    assert answer.status is TransferStatus.STORED
    assert ends.receiving.files == {"_evil": b"x"}


@pytest.mark.parametrize("label", ["", "stt-transfer/2", "video"])
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

    stream = await offer_by_hand(ends.sending.session, offer_of("a", 10), chunk_of(b"half"))
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

    for number in range(ITEMS_AT_ONCE):
        stream = await offer_by_hand(ends.sending.session, offer_of(str(number), 10))
        assert Answer.decode(await read_message(stream)).status is TransferStatus.ACCEPTED
    stream = await offer_by_hand(ends.sending.session, offer_of("one more", 10))

    assert Answer.decode(await read_message(stream)).status is TransferStatus.BUSY
    ends.sending.session.close()
    await serving
    assert ends.receiving.files == {}


async def test_a_session_whose_files_are_all_stored_is_closed_if_the_sender_forgets(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "FAREWELL_TIMEOUT", 0.01)
    serving = asyncio.create_task(ends.receiving.serve())

    stream = await offer_by_hand(ends.sending.session, offer_of("a", 0), encode_file_start(0, 0))
    stream.end()
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
ALL = PlanSize(0).encode()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "ended where a message was to come"),
        ((b"\x00\x01\x00",), "otherwise than a receiver"),
        ((b"SSH-2.0-x\r\n",), "otherwise than a receiver"),
        ((ACCEPTED,), "ended where a message was to come"),
        ((ACCEPTED, ACCEPTED), "otherwise than a receiver"),
        ((ACCEPTED, Answer(status=TransferStatus.STORED, sha3_256=bytes(32)).encode()), "otherwise than a receiver"),
        ((ACCEPTED, Answer(status=TransferStatus.NOT_WRITABLE, text="cannot be read").encode()), "cannot be read"),
        ((ACCEPTED, PlanSize(5).encode(), bytes(4)), "otherwise than a receiver"),
        ((ACCEPTED, PlanSize(5).encode(), b"\x00\x00\x00\x09\x00"), "otherwise than a receiver"),
        ((ACCEPTED, ALL), "ended where a message was to come"),
        ((ACCEPTED, ALL, ACCEPTED), "accepted"),
        ((Answer(status=TransferStatus.BUSY).encode(),), "busy"),
        ((Answer(status=TransferStatus.NO_SPACE, text="full up").encode(),), "full up"),
        ((ACCEPTED, ALL, Answer(status=TransferStatus.MISMATCH, text="other bytes").encode()), "other bytes"),
        ((Answer(status=TransferStatus.STORED, sha3_256=bytes(32)).encode(),), "before it came"),
        ((ACCEPTED, PlanSize(0, sha3(b"content")).encode()), "ended where a message was to come"),
        (
            (
                ACCEPTED,
                PlanSize(0, sha3(b"content")).encode(),
                Answer(status=TransferStatus.STORED, sha3_256=bytes(32)).encode(),
            ),
            "confirmed other bytes",
        ),
        ((ACCEPTED, ALL, Answer(status=TransferStatus.STORED, sha3_256=bytes(32)).encode()), "confirmed other bytes"),
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
    path = source("big", os.urandom(64 * CHUNK_SIZE))
    sending = asyncio.create_task(ends.sending.send(path))

    stream = await answer_by_hand(ends.receiving.session, ACCEPTED, ALL, end=False)
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
