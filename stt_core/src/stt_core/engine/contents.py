"""What a frame under way holds, so that it can be sent again or let go of."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

Content: TypeAlias = tuple[Any, ...]
"""A :class:`Kind` and what belongs to it."""


class Kind(IntEnum):
    """What a frame under way holds, and so what is to be done when it is lost or confirmed."""

    DATA = 0  #: stream id, start, stop
    OPEN = 1  #: stream id
    CLOSE = 2  #: stream id, CloseKind
    CREDIT = 3  #: CreditKind, stream id
    KEEPALIVE = 4  #: the number below which acknowledgements need not report any more
    PING = 5  #: token
    MTU_PROBE = 6  #: size
    MESSAGE = 7  #: message id, start, stop
