"""A program that uses all of the public API, to be checked strictly by type checkers; it also runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import (
    Capture,
    CaptureLimits,
    Config,
    Engine,
    EngineError,
    EngineStats,
    Packed,
    RequestError,
    ScriptLoadError,
    Subscription,
)
from engine.values.records import Alert, Record
from engine.values.windows import Window


class Lines:
    """A sink."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, record: Record) -> None:
        self.lines.append(type(record).__name__)

    async def flush(self) -> None:
        return None

    async def close(self) -> None:
        return None


async def find_name(user: int) -> str:
    await asyncio.sleep(0)
    return f"user {user}"


def double(number: float) -> float:
    return number * 2


async def first_alert(alerts: Subscription) -> str:
    async for record in alerts:
        if isinstance(record, Alert):
            return record.message
    return ""


def report(window: Window) -> None:
    for group in window.groups:
        print(group.group.name, len(group.values))


async def serve(scripts: Sequence[Path], capture: Path | None) -> EngineStats:
    config = Config(limits=CaptureLimits(), drain_seconds=5.0)
    sink = Lines()
    async with Engine(scripts, config=config, sinks=[sink]) as engine:
        errors: tuple[ScriptLoadError, ...] = tuple(engine.load_errors)
        for error in errors:
            print(error)
        engine.expose("find_name", find_name)
        engine.expose("double", double)
        engine.on_window(report)
        alerts = engine.subscribe("alert")
        await engine.emit("orders.created", {"id": 7, "total": 2400.5, "tags": ["a", b"b"]})
        await engine.emit_batch("orders.created", [b"1", b"2"])
        await engine.emit_batch("orders.created", Packed(b"34", [1, 1]))
        taken: bool = engine.emit_nowait("orders.created", "text")
        try:
            answer: object = await engine.request("ask", "x", timeout=1.0, collect="all")
        except (RequestError, TimeoutError) as error:
            answer = str(error)
        if capture is not None:
            await engine.run(Capture(capture))
        alerts.close()
        print(taken, answer, await first_alert(alerts), engine.stats.events.handled)
    return engine.stats


def in_thread(scripts: Sequence[Path]) -> int:
    with Engine.in_thread(scripts, use_uvloop=False) as engine:
        engine.emit("orders.created", {"id": 8})
        return engine.stats.events.handled


if __name__ == "__main__":
    try:
        asyncio.run(serve([Path(each) for each in sys.argv[1:]], None))
        print(in_thread([Path(each) for each in sys.argv[1:]]))
    except EngineError as error:
        raise SystemExit(str(error)) from None
