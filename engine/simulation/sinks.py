"""Sinks of a simulation: what writes files does so at once, so that no thread is waited for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from engine.pipeline.records import Sink, WindowSink
from engine.values.records import Record


@runtime_checkable
class _Blocking(Protocol):
    """A sink that can be closed without a loop, and bounds what it holds until then."""

    def write(self, record: Record) -> None: ...
    def close_now(self) -> None: ...


class _Inline:
    def __init__(self, sink: _Blocking) -> None:
        self._sink = sink

    def write(self, record: Record) -> None:
        self._sink.write(record)

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        self._sink.close_now()


def inline(sink: Sink) -> Sink:
    """A sink that writes records only, without threads; others as they are."""
    return _Inline(sink) if isinstance(sink, _Blocking) and not isinstance(sink, WindowSink) else sink
