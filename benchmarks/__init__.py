"""How fast STT is, beside what else a Python program could use: ``python -m benchmarks``."""
