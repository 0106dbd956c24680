"""Fuzzing of all that reads packets: `python -m tests.fuzz --help`."""
