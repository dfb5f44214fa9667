"""Do the core's own plugins keep the rules that anybody's have to keep?"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from stt_core.defaults.controllers import CONTROLLERS
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.defaults.suites import SUITES
from stt_core.testing import CongestionControllerContract, CryptoSuiteContract, StorageContract, TransportContract

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.storage import StorageFactory
    from stt_core.interfaces.transport import TransportFactory

numbers = itertools.count()


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def factory(self) -> TransportFactory:
        return MemoryTransport

    @pytest.fixture
    def url(self) -> str:
        return f"memory://contract-{next(numbers)}"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "memory://"


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return MemoryStorage

    @pytest.fixture
    def url(self) -> str:
        return "memory://"


class TestSuites(CryptoSuiteContract):
    @pytest.fixture(params=SUITES, ids=hex)
    def number(self, request: pytest.FixtureRequest) -> int:
        number: int = request.param
        return number

    @pytest.fixture
    def suite(self, number: int) -> CryptoSuite:
        return SUITES[number]


class TestControllers(CongestionControllerContract):
    @pytest.fixture(params=CONTROLLERS)
    def factory(self, request: pytest.FixtureRequest) -> ControllerFactory:
        return CONTROLLERS[request.param]
