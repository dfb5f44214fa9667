from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ocb_suite import NUMBER, OCBSuite
from stt_core.testing import CryptoSuiteContract

if TYPE_CHECKING:
    from stt_core.interfaces.crypto import CryptoSuite


class TestOCBSuite(CryptoSuiteContract):
    @pytest.fixture
    def suite(self) -> CryptoSuite:
        return OCBSuite()

    @pytest.fixture
    def number(self) -> int:
        return NUMBER
