"""The commands of ``stt`` that come with it, one a module."""
