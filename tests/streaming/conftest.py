"""No deadline for one example of a property: a busy machine is no bug."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("stt", deadline=None)
settings.load_profile("stt")
