"""Targets in which something is to be found, to see that it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from tests.fuzz.pieces import pack, unpack


class _Faulty:
    tokens = (b"fault",)

    def seeds(self) -> list[bytes]:
        return [pack([b"good"]), pack([b"x", b"fault"]), pack([b"more"])]

    def execute(self, data: bytes) -> Iterable[object]:
        if b"fault" in unpack(data):
            self.fail()
        return [data]

    def fail(self) -> None:
        """What goes wrong."""

    def close(self) -> None:
        """Nothing to give back."""


class Raises(_Faulty):
    def fail(self) -> None:
        raise ValueError("it went wrong")


class Crashes(_Faulty):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(_Faulty):
    def fail(self) -> None:
        while True:
            pass


class Faultless(_Faulty):
    """Nothing goes wrong."""
