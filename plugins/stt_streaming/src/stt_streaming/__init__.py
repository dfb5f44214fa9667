"""Files over STT: the transfer protocol, and the commands ``stt send`` and ``stt receive``.

Nothing is imported here, so that listing the commands of ``stt`` costs little; see :mod:`stt_streaming.transfer`.
"""
