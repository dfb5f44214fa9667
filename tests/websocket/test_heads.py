from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_websocket.errors import UpgradeRefused
from stt_websocket.heads import Head, HeadReader

REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: a, b\r\naccept:\t c \r\nEmpty:\r\n\r\n"


def refused(data: bytes, *, max_size: int = 1000, max_fields: int = 10) -> UpgradeRefused:
    with pytest.raises(UpgradeRefused) as caught:
        HeadReader(max_size=max_size, max_fields=max_fields).receive_data(data)
    return caught.value


def test_a_head_is_read() -> None:
    head = HeadReader().receive_data(REQUEST)

    assert head is not None
    assert head.start_line == "GET / HTTP/1.1"
    assert head.values("host") == ["example.org"]
    assert head.values("accept") == ["a, b", "c"]
    assert head.tokens("accept") == ["a", "b", "c"]
    assert head.values("empty") == [""]
    assert head.tokens("empty") == []
    assert head.values("missing") == []


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=5), rest=st.binary(max_size=20))
def test_a_head_is_read_however_it_is_cut_and_what_follows_is_kept(cuts: list[int], rest: bytes) -> None:
    data = REQUEST + rest
    reader = HeadReader()
    head = None
    position = 0
    while head is None:
        for cut in cuts:
            if head is None:
                head = reader.receive_data(data[position : position + cut])
                position += cut

    assert head == HeadReader().receive_data(REQUEST)
    assert reader.rest + data[position:] == rest


def test_values_do_not_show_in_the_repr() -> None:
    assert "secret" not in repr(Head("GET / HTTP/1.1", (("authorization", "secret"),)))


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nInjected: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nH\xc3\xb6st: a\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused_with_400(data: bytes) -> None:
    assert refused(data).status == 400


def test_a_head_beyond_the_size_is_refused_with_431_whether_it_ends_or_not() -> None:
    endless = b"GET / HTTP/1.1\r\nA: " + b"a" * 1000

    assert refused(endless).status == 431
    assert refused(endless + b"\r\n\r\n").status == 431
    assert HeadReader(max_size=1019).receive_data(endless + b"\r\n\r\n") is not None


def test_a_head_with_too_many_fields_is_refused_with_431() -> None:
    fields = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 11

    assert refused(fields + b"\r\n").status == 431


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_awaited_or_refused_with_a_status(data: bytes) -> None:
    reader = HeadReader(max_size=100, max_fields=3)
    try:
        head = reader.receive_data(data + b"\r\n\r\n")
    except UpgradeRefused as refusal:
        assert refusal.status in {400, 431}  # noqa: PT017  or nothing is raised
    else:
        assert head is not None
