"""Files, streams and tunnels over STT.

Nothing is imported here, so that listing the commands of ``stt`` costs little. See :mod:`stt_streaming.transfer` for
files, :mod:`stt_streaming.encoder` and :mod:`stt_streaming.decoder` for segments, :mod:`stt_streaming.tunnel` for pipes
and TCP ports, :mod:`stt_streaming.live` for live streams.
"""
