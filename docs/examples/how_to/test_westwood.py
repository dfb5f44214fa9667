from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import CongestionControllerContract
from westwood import Westwood

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import ControllerFactory


class TestWestwood(CongestionControllerContract):
    @pytest.fixture
    def factory(self) -> ControllerFactory:
        return Westwood
