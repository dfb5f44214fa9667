"""How other machines reach a URL that this one listens on."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def advice_on_reach(url: str) -> str | None:
    """Return a sentence on how to be reached, where the URL does not say it by itself."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address((parts.hostname or "").partition("%")[0])
    except ValueError:
        return None
    others = f"{parts.scheme}://ADDRESS:{parts.port}{parts.path}, with an address of this machine"
    if address.is_unspecified:
        return f"other machines reach this one at {others}"
    if not address.is_loopback:
        return None
    everywhere = "0.0.0.0" if address.version == 4 else "[::]"  # noqa: S104  advice, not a default
    return (
        f"only this machine can reach {url}; to be reached by others, listen on "
        f"{parts.scheme}://{everywhere}:{parts.port}{parts.path}: they reach this machine at {others}"
    )
