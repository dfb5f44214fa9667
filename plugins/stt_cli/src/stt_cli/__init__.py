"""The command ``stt``: its frame, and the commands that any node needs; plugins bring the others."""
