"""What every endpoint keeps: the contract kit of :data:`~stt_core.interfaces.endpoint.EndpointHandler`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from stt_core.errors import STTError
from stt_core.interfaces.endpoint import EndpointRequest
from stt_core.testing.contract import rule
from stt_core.testing.handler_rules import HandlerRules, peer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stt_core.interfaces.endpoint import EndpointHandler, Peer
    from stt_core.testing.handler_rules import Handle

_MAX_NAME_SIZE: Final = 256  # bytes
_LARGE: Final = 1 << 20  # bytes: a body that goes over a stream


class EndpointContract(HandlerRules):
    """The rules of endpoints. Give the fixtures :meth:`name`, :meth:`handler` and :meth:`examples`.

    The handler is called as a node calls it; no session is needed.
    """

    @pytest.fixture
    def name(self) -> str:
        """Return the name that it is registered under."""
        self.to_be_given("name", "the name that the endpoint is registered under")

    @pytest.fixture
    def handler(self) -> EndpointHandler:
        """Return the handler, as it is registered."""
        self.to_be_given("handler", "the endpoint's handler, as it is registered")

    @pytest.fixture
    def examples(self) -> Mapping[bytes, bytes | None]:
        """Return bodies of requests, each with the reply that it gets, today and always."""
        self.to_be_given("examples", "bodies of requests, each with the reply that it always gets")

    @pytest.fixture
    def handle(self, name: str, handler: EndpointHandler) -> Handle:
        """Return what calls the handler."""
        return lambda body, peer: handler(_request(name, body, peer))

    @pytest.fixture
    def answers(self, examples: Mapping[bytes, bytes | None]) -> Mapping[bytes, bytes | None]:
        """Return the examples."""
        return examples

    @pytest.fixture
    def sizes(self) -> Sequence[int]:
        """Return sizes of bodies."""
        return 0, 1, 2, 1000, _LARGE

    @rule()
    def test_its_name_has_its_owner_in_front(self, name: str) -> None:
        """``acme.clock``: the address is a hash of the name, and one name means one thing."""
        owner, dot, rest = name.partition(".")
        assert owner
        assert dot
        assert rest
        assert name.isprintable()
        assert len(name.encode()) <= _MAX_NAME_SIZE
        assert owner != "stt", "that name is the core's"

    @rule()
    async def test_what_nobody_waits_for_is_handled_too(
        self, name: str, handler: EndpointHandler, examples: Mapping[bytes, bytes | None]
    ) -> None:
        """A request without a reply may be refused, by an STTError, and does no other harm."""
        for body in examples:
            try:
                await handler(_request(name, body, peer(1), one_way=True))
            except STTError:
                continue
            except Exception as error:  # noqa: BLE001  whatever it is
                pytest.fail(f"it raised {error!r}")


def _request(name: str, body: bytes, peer: Peer, *, one_way: bool = False) -> EndpointRequest:
    return EndpointRequest(name, body, peer, one_way)
