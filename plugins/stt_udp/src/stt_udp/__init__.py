"""UDP for STT: ``udp://`` URLs, carried as fast as the kernel's trains of datagrams allow."""

from stt_udp._version import __version__
from stt_udp.statistics import UDPStatistics
from stt_udp.transport import UDPTransport

__all__ = ("UDPStatistics", "UDPTransport", "__version__")
