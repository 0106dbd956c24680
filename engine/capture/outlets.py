"""Where the bodies of HTTP messages go: hooks, a listener, files, records; and what is counted of them."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from engine.capture.applications.hashes import Hashes
from engine.capture.http import Exchange
from engine.capture.ramfs import Ramfs
from engine.values.config import CaptureLimits
from engine.values.records import File, Http


class FileHooks(Protocol):
    """What plugins make of flows and bodies; implemented by the plugin floor. Every call is on the loop thread.

    `flow` is the flow key, `request` and `response` are header blocks as on the wire (b"" when not seen),
    `direction` is 0 for client to server and 1 for server to client (spec 2.13).
    """

    wants_files: bool
    wants_payload: bool
    wants_raw: bool

    def filter_flow(self, time: float, flow: bytes) -> bool:
        """False skips the flow."""

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:
        """False skips the body behind this head."""

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        """Bytes of the TCP stream; `seekpos` is their position in it."""

    def payload_http(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        direction: int,
        seekpos: int,
        data: bytes,
    ) -> None:
        """Decoded bytes of a body; a call with none marks the end."""

    def file(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        length: int,
        is_partial: bool,
        lease: int,
    ) -> None:
        """A file, or one part of it, is ready. It goes when the call returns, unless the lease was held."""

    def flow_end(self, time: float, flow: bytes) -> None:
        """Nothing more will come of this flow."""


class HttpListener(Protocol):
    """Hears of messages and bodies, and has no say in them."""

    wants_hashes: bool

    def wants_flow(self, flow: bytes) -> bool:
        """Whether it is to hear of the messages of a connection."""

    def head(self, flow: bytes, exchange: Exchange, is_request: bool, time: float) -> None:
        """A header block was read: that of the request, or of the final response."""

    def unanswered(self, flow: bytes, exchange: Exchange) -> None:
        """No response to this request was found, or will be."""

    def body(self, flow: bytes, exchange: Exchange, hashes: Hashes, time: float) -> None:
        """A body is over, and was whole."""


@dataclass(slots=True)
class Counts:
    """Running counts of one extractor, by the names of `HttpStats`, and the bytes that bodies hold back."""

    requests: int = 0
    responses: int = 0
    malformed: int = 0
    upgrades: int = 0
    fields_cut: int = 0
    files: int = 0
    files_complete: int = 0
    file_bytes: int = 0
    decode_errors: int = 0
    bombs: int = 0
    write_errors: int = 0
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where bodies go; one for all bodies of an extractor."""

    limits: CaptureLimits
    ramfs: Ramfs
    hooks: FileHooks
    record: Callable[[Http | File], None]
    chunk_bytes: int
    counts: Counts
    listener: HttpListener | None = None
    bodies: bool = True
    kinds: Container[str] = ("http", "file")
    """Kinds of records that are made."""
