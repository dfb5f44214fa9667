"""A transfer over a bad network without any network: seconds of it take milliseconds."""

from stt_core.testing import Inbox, Link, session_pair


def main() -> None:
    alice, bob = session_pair()
    inbox = Inbox()
    link = Link(alice, bob, latency=0.05, loss=0.02, mtu=1472, on_event=inbox)

    stream_id = alice.open_stream("file")
    assert stream_id is not None
    alice.write(stream_id, bytes(300_000))
    alice.end_stream(stream_id)

    link.run(until=0.5)
    link.move(alice, ("192.0.2.7", 50_000))
    link.wait_for(lambda: inbox.has_ended(bob, stream_id), within=120.0)

    received = len(inbox.data(bob, stream_id))
    print(f"{received:,} bytes came within {link.now:.1f} s, though {link.forth.lost} datagrams were lost")


if __name__ == "__main__":
    main()
