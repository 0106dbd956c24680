"""What is fuzzed, by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Protocol, cast


class Target(Protocol):
    """One reader of packets, or of what is in them. Made once in a process."""

    tokens: tuple[bytes, ...]
    """Words that inputs are made with."""

    def seeds(self) -> list[bytes]:
        """Inputs to begin with."""

    def execute(self, data: bytes) -> Iterable[object]:
        """Read an input. Raises what is a finding; returns what was seen, by which new inputs are told from old."""

    def close(self) -> None:
        """Give back what it holds."""


TARGETS = {
    "capture": "tests.fuzz.targets.packets:CaptureFiles",
    "dissect": "tests.fuzz.targets.packets:Dissector",
    "tcp": "tests.fuzz.targets.tcp:TcpStreams",
    "fragments": "tests.fuzz.targets.fragments:Fragments",
    "http": "tests.fuzz.targets.http:HttpBodies",
    "dns": "tests.fuzz.targets.dns:DnsMessages",
    "tls": "tests.fuzz.targets.tls:TlsHandshakes",
    "certificates": "tests.fuzz.targets.tls:Certificates",
    "quic": "tests.fuzz.targets.quic:QuicHellos",
}


def load(name: str) -> Target:
    """A target by its name, or by module and class as in the table."""
    module, _, kind = TARGETS.get(name, name).partition(":")
    return cast(Target, getattr(importlib.import_module(module), kind)())
