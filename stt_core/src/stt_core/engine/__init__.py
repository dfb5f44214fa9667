"""Protocol state: no clock, no I/O."""
