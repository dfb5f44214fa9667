"""Does each rule of the kit of transports find a transport that breaks it, and only that one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import TransportContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
PUT = "        peer.put(bytes(data), Name(self.name))\n"
OPENED = '        self.state = "open"\n'
NOT_OPEN = '        if self.state != "open":\n            return\n'
STARTED = "        self.receiver = receiver\n        self.loop.call_soon(self.deliver)\n"
CLEARED = "        self.inbox.clear()\n        self.receiver."
CHECKED = "        self.check(len(data))\n        while True:\n"
POP = "        data, address = self.inbox.popleft()\n"
REFUSED = "            peer.refused.add(self)\n"
WAIT = "            await self.wait(peer.senders)\n"

PATIENT = ("patience = 0.5  #", "patience = 5.0  #")

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_a_url_that_cannot_be_used_is_a_config_error": (("raise ConfigError", "raise TransportError"),),
    "test_the_declared_sizes_carry_a_handshake": (("max_message_size=100_000", "max_message_size=1199"),),
    "test_who_dialled_knows_its_peer_and_a_listener_has_none": (
        (OPENED, f'{OPENED}        self.peer = self.peer or Name("nobody")\n'),
    ),
    "test_addresses_are_readable": (
        ("@attrs.frozen\n", "@attrs.frozen(repr=False)\n"),
        ("    def __str__(self) -> str:\n        return self.text\n", ""),
        ("str(address))\n            if", "address.text)\n            if"),
        ("str(address))\n        if", "address.text)\n        if"),
        ("if str(other.peer) == self.name", "if other.peer == Name(self.name)"),
    ),
    "test_an_address_in_use_is_refused": (("if self.name in self.everybody:", "if False:"),),
    "test_dialling_where_nobody_listens_raises_nothing_but_transport_errors": (
        ('raise PeerUnreachable(self.name, f"nobody listens at {self.url}")', "raise ConnectionRefusedError"),
    ),
    "test_what_was_never_opened_can_be_closed": (
        (NOT_OPEN, '        if self.state != "open" and hasattr(self, "loop"):\n            return\n'),
    ),
    "test_an_empty_message_is_a_message": ((PUT, f"        if data:\n    {PUT}"),),
    "test_the_largest_message_comes_whole": (("if size > self", "if size >= self"),),
    "test_a_message_above_the_largest_is_refused": (("> self.capabilities.max_message_size", "> 200_000"),),
    "test_every_message_comes_whole": (
        (PUT, PUT.replace("bytes(data)", "bytes(data) if len(data) != 2048 else bytes(data)[:2047]")),
    ),
    "test_all_messages_come_once_and_in_order": ((PUT, f"{PUT}        if self.messages_sent == 128:\n    {PUT}"),),
    "test_any_buffer_can_be_sent": ((PUT, PUT.replace("bytes(data)", 'data + b""')),),
    "test_a_received_message_stays_as_it_came": (
        (POP, f"{POP}        self.scratch[: len(data)] = data\n        data = memoryview(self.scratch)[: len(data)]\n"),
    ),
    "test_many_tasks_may_send_at_a_time": (
        ("    async def send(", "    data = b''\n\n    async def send("),
        (PUT, PUT.replace("bytes(data)", "self.data")),
        (CHECKED, f"        self.data = bytes(data)\n        await asyncio.sleep(0)\n{CHECKED}"),
    ),
    "test_answers_reach_who_asked": (
        (
            "            peer = self.find(str(address))\n            if",
            (
                "            peer = self.find(str(address))\n            if self.listening and peer:\n                "
                "peer = [other for other in self.everybody.values() if not other.listening][-1]\n            if"
            ),
        ),
    ),
    "test_a_peer_keeps_its_address": ((PUT, PUT.replace("self.name", 'self.name + "x" * (self.messages_sent % 2)')),),
    "test_a_peer_that_leaves_does_not_disturb_the_others": (
        ("if str(other.peer) == self.name:", "if str(other.peer) == self.name or not self.listening:"),
    ),
    "test_sending_to_a_peer_that_left_raises_peer_unreachable": (
        ('raise PeerUnreachable(address, f"{address} is gone")', "return"),
    ),
    "test_who_dialled_learns_that_the_listener_left": (("other.leave_alone()", "pass"),),
    "test_a_sender_waits_while_nobody_receives": (
        ("            if len(peer.inbox) < QUEUE_SIZE:", "            if len(peer.inbox) < 1_000_000:"),
        PATIENT,  # it waits for nothing, but takes a thousand large messages in three rules
    ),
    "test_a_cancelled_send_leaves_no_part_of_a_message": (
        (
            WAIT,
            (
                f"            try:\n    {WAIT}            except asyncio.CancelledError:\n"
                "                peer.put(bytes(data[:10]), Name(self.name))\n                raise\n"
            ),
        ),
    ),
    "test_a_cancelled_receive_loses_nothing": ((POP, f"{POP}        await asyncio.sleep(0)\n"),),
    "test_closing_twice_is_allowed": (
        (NOT_OPEN, '        if self.state == "new":\n            return\n        self.check(0)\n'),
    ),
    "test_a_closed_transport_raises_transport_errors": ((CHECKED, NOT_OPEN + CHECKED),),
    "test_closing_ends_a_waiting_receive": (
        ("        self.wake(self.receivers)\n        self.wake(self.senders)\n", "        self.wake(self.senders)\n"),
    ),
    "test_closing_ends_a_waiting_send": (("            self.wake(other.senders)\n", ""),),
    "test_closing_gives_the_address_back": (("        del self.everybody[self.name]\n", ""),),
    "test_closing_leaves_nothing_behind": (
        (OPENED, f"{OPENED}        self.task = asyncio.create_task(asyncio.Event().wait())\n"),
    ),
    "test_statistics_are_zero_or_right": (("self.bytes_sent += len(data)", "self.bytes_sent += len(data) + 4"),),
    "test_a_train_is_cut_into_its_messages": (
        ("in train.segments():", "in train.segments()[: len(train.data) // train.segment_size or 1]:"),
    ),
    "test_a_burst_stays_as_it_came": (
        (
            CLEARED,
            "        for number, (data, address) in enumerate(burst):\n"
            "            self.scratch[number * 1000 : number * 1000 + len(data)] = data\n"
            "            kept = memoryview(self.scratch)[number * 1000 : number * 1000 + len(data)]\n"
            "            burst[number] = (kept if len(data) == 1000 else data, address)\n" + CLEARED,
        ),
    ),
    "test_a_receiver_is_never_called_from_within_a_call": (
        (STARTED, "        self.receiver = receiver\n        self.deliver()\n"),
    ),
    "test_a_refused_train_is_followed_by_writable": ((REFUSED, ""),),
    "test_nothing_of_a_refused_train_is_sent": (
        (REFUSED, f"{REFUSED}            peer.put(train.segments()[0], Name(self.name))\n"),
    ),
    "test_what_came_before_the_receiver_is_delivered_to_it": (
        (STARTED, "        self.receiver = receiver\n        self.inbox.clear()\n"),
    ),
    "test_a_receiver_learns_that_its_peer_left": (
        ('self.loop.call_soon(other.receiver.peer_unreachable, Name(self.name), "closed")', "pass"),
    ),
    "test_a_receiver_is_left_alone_once_closed": (
        (
            "        self.receiver = None\n",
            (
                "        if self.receiver is not None:\n            "
                'self.loop.call_soon(self.receiver.failed, "closed")\n'
            ),
        ),
    ),
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("transport", BREACHES)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(TransportContract.rules())


def test_an_honest_transport_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(TransportContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def test_a_transport_that_loses_messages_keeps_the_rules_if_it_says_so(outcomes_of: Callable[..., Outcomes]) -> None:
    loses = (PUT, f"        if self.messages_sent % 7 != 3:\n    {PUT}")
    admits = ("reliable=True", "reliable=False")

    assert broken(outcomes_of("transport", {"lossy": (loses, admits, PATIENT)})["lossy"]) == []


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
