"""Events per second into a handler on one core: one by one and in batches, beside other ways to call handlers.

Every handler does the same: it counts, and adds up the price in the event. Time is that of the processor, so that
a busy machine does less harm.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Benchmark,
    BenchmarkError,
    Column,
    Measures,
    Need,
    Options,
    Ratio,
    Report,
    Series,
    interleave,
    ratio,
    sort_out,
)
from benchmarks.table import number
from engine import Config, Engine, Packed
from engine.values.records import Log

EMIT, BATCH = "emit, mapping", "emit_batch, mappings"
EMIT_BYTES, BATCH_BYTES, PACKED = "emit, bytes", "emit_batch, bytes", "emit_batch, Packed"
JSON_BYTES = "emit_batch, JSON decoded in Lua"
CROWD = "emit_batch, mappings, 1,000 other plugins"
LUPA = "lupa, a call per event"
PEERS = {"pyee": "pyee", "blinker": "blinker", "streamz": "streamz"}
GOALS = {EMIT: 0.3e6, BATCH: 0.7e6, BATCH_BYTES: 3e6}

_SCRIPTS = Path(__file__).parent / "lua"
_BATCH = 2_000  # events that a batch has
_CROWD = 1_000

COLUMNS = (Column("rate", "events", "/s"), Column("ns", "one event", "ns"))


@dataclass(frozen=True, slots=True)
class Work:
    """The events of a run, as mappings and as JSON; a way that does them one by one takes a tenth."""

    mappings: Sequence[dict[str, Any]]
    texts: Sequence[bytes]
    crowd: int = _CROWD

    @property
    def few(self) -> Sequence[dict[str, Any]]:
        """The mappings for slow ways."""
        return self.mappings[: max(len(self.mappings) // 10, 1)]


def make_work(events: int, crowd: int = _CROWD) -> Work:
    """So many orders, each with a price of its own."""
    mappings = [{"id": place, "price": place % 97, "name": f"order {place % 50}"} for place in range(events)]
    return Work(mappings, [json.dumps(each).encode() for each in mappings], crowd)


def run(options: Options) -> Report:
    """Measure all ways."""
    work = make_work(60_000 if options.quick else 300_000, 200 if options.quick else _CROWD)
    return measure(work, repeats=options.repeats)


def measure(work: Work, *, repeats: int, warmups: int = 1) -> Report:
    """The same with work of one's own."""
    needs = {name: Need(partial(_is_there, module), f"pip install {name}") for name, module in PEERS.items()}
    ways, missing = sort_out(all_ways(), needs)
    series = interleave({name: partial(way, work) for name, way in ways.items()}, repeats=repeats, warmups=warmups)
    return _report(series, missing, work, repeats)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def all_ways() -> dict[str, Callable[[Work], Measures]]:
    """Every way by its name, in the order of the table."""
    return {
        EMIT: partial(_with_engine, "table.orders", _emit_mappings),
        EMIT_BYTES: partial(_with_engine, "text.orders", _emit_texts),
        BATCH: partial(_with_engine, "table.orders", _batch_mappings),
        CROWD: partial(_with_engine, "table.orders", _batch_mappings, crowded=True),
        BATCH_BYTES: partial(_with_engine, "text.orders", _batch_texts),
        PACKED: partial(_with_engine, "text.orders", _batch_packed),
        JSON_BYTES: partial(_with_engine, "json.orders", _batch_texts),
        LUPA: _with_lupa,
        "pyee": _with_pyee,
        "blinker": _with_blinker,
        "streamz": _with_streamz,
    }


# ---- the engine


async def _emit_mappings(engine: Engine, topic: str, work: Work) -> Sequence[Any]:
    for event in work.few:
        await engine.emit(topic, event)
    return work.few


async def _emit_texts(engine: Engine, topic: str, work: Work) -> Sequence[Any]:
    texts = work.texts[: len(work.few)]
    for event in texts:
        await engine.emit(topic, event)
    return texts


async def _batch_mappings(engine: Engine, topic: str, work: Work) -> Sequence[Any]:
    for at in range(0, len(work.mappings), _BATCH):
        await engine.emit_batch(topic, work.mappings[at : at + _BATCH])
    return work.mappings


async def _batch_texts(engine: Engine, topic: str, work: Work) -> Sequence[Any]:
    for at in range(0, len(work.texts), _BATCH):
        await engine.emit_batch(topic, work.texts[at : at + _BATCH])
    return work.texts


async def _batch_packed(engine: Engine, topic: str, work: Work) -> Sequence[Any]:
    """What comes packed from a socket or a file was not packed here."""
    for packed in _packed(work.texts):
        await engine.emit_batch(topic, packed)
    return work.texts


def _packed(texts: Sequence[bytes]) -> list[Packed]:
    parts = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
    return [Packed(b"".join(part), [len(each) for each in part]) for part in parts]


def _with_engine(topic: str, emit: Callable[..., Any], work: Work, *, crowded: bool = False) -> Measures:
    return asyncio.run(_run_engine(topic, emit, work, crowded))


async def _run_engine(topic: str, emit: Callable[..., Any], work: Work, crowded: bool) -> Measures:
    sink = _Told()
    config = Config(slow_hook_seconds=60.0)
    async with Engine([_SCRIPTS / "events.lua"], config=config, sinks=[sink]) as engine:
        for _ in range(work.crowd if crowded else 0):
            await engine.load(_SCRIPTS / "bystander.lua")
        if emit is _batch_packed:
            _packed(work.texts)
        began = time.process_time()
        events = await emit(engine, topic, work)
        seconds = time.process_time() - began
    check(topic, events, sink.texts)
    return _measures(len(events), seconds)


class _Told:
    """A sink that keeps what scripts logged."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, record: object) -> None:
        if isinstance(record, Log) and record.level == "INFO":
            self.texts.append(record.text)

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


def check(topic: str, events: Sequence[Any], told: Sequence[str]) -> None:
    """Raises `BenchmarkError` unless the script saw every event, and added up what is in them."""
    if topic == "table.orders":
        total = sum(each["price"] for each in events)
    elif topic == "json.orders":
        total = sum(json.loads(each)["price"] for each in events)
    else:
        total = sum(map(len, events))
    if list(told) != [f"{len(events)} {total}"]:
        raise BenchmarkError(f"{topic}: {len(events)} events with a sum of {total} came to {told}")


def _measures(count: int, seconds: float) -> Measures:
    return {"rate": count / seconds, "ns": seconds / count * 1e9}


# ---- others


class _Adder:
    """The same handler in Python."""

    def __init__(self) -> None:
        self.count = self.total = 0

    def take(self, event: dict[str, Any]) -> None:
        self.count, self.total = self.count + 1, self.total + event["price"]

    def take_sent(self, _sender: object, event: dict[str, Any]) -> None:
        self.take(event)


def _timed(work: Work, adder: _Adder, call: Callable[[dict[str, Any]], object]) -> Measures:
    events = work.few
    began = time.process_time()
    for event in events:
        call(event)
    seconds = time.process_time() - began
    if (adder.count, adder.total) != (len(events), sum(each["price"] for each in events)):
        raise BenchmarkError(f"{len(events)} events, but {adder.count} were handled")
    return _measures(len(events), seconds)


def _with_lupa(work: Work) -> Measures:
    from lupa.luajit21 import LuaRuntime

    runtime = LuaRuntime(encoding=None)
    handler, told = runtime.execute(
        b"local count, total = 0, 0 "
        b"return function(event) count, total = count + 1, total + event.price end, function() return count, total end"
    )
    adder = _Adder()

    def call(event: dict[str, Any]) -> None:
        handler(runtime.table_from({key.encode(): value for key, value in event.items()}))

    events = work.few
    began = time.process_time()
    for event in events:
        call(event)
    seconds = time.process_time() - began
    adder.count, adder.total = map(int, told())
    if (adder.count, adder.total) != (len(events), sum(each["price"] for each in events)):
        raise BenchmarkError(f"{len(events)} events, but {adder.count} were handled")
    return _measures(len(events), seconds)


def _with_pyee(work: Work) -> Measures:
    from pyee.base import EventEmitter

    emitter, adder = EventEmitter(), _Adder()
    emitter.on("orders", adder.take)
    return _timed(work, adder, lambda event: emitter.emit("orders", event))


def _with_blinker(work: Work) -> Measures:
    from blinker import Signal

    signal, adder = Signal("orders"), _Adder()
    signal.connect(adder.take_sent)
    return _timed(work, adder, lambda event: signal.send(None, event=event))


def _with_streamz(work: Work) -> Measures:
    from streamz import Stream

    source, adder = Stream(), _Adder()
    source.sink(adder.take)
    return _timed(work, adder, source.emit)


# ---- the report


def _report(series: Series, missing: dict[str, str], work: Work, repeats: int) -> Report:
    ratios = [
        Ratio(f"{way}: {{}} million events/s", _millions(series, way), f"at least {goal / 1e6:g}")
        for way, goal in GOALS.items()
    ]
    ratios.append(
        ratio(
            f"with {work.crowd:,} other plugins an event costs {{}} times as much",
            series[CROWD]["ns"],
            series[BATCH]["ns"],
        )
    )
    ratios += [
        ratio(f"{way} does {{}} times the events of {LUPA}", series[way]["rate"], series[LUPA]["rate"])
        for way in (EMIT, BATCH)
    ]
    ratios += [
        ratio(f"{EMIT} does {{}} times the events of {peer}", series[EMIT]["rate"], series[peer]["rate"])
        for peer in PEERS
        if peer in series
    ]
    notes = (
        f"Processor time of the loop's thread. {number(len(work.mappings))} events a run, {number(len(work.few))} "
        f"where they go one by one; batches of {_BATCH:,}. Median (lowest-highest) of {repeats} interleaved repeats.",
        "Every handler counts and adds up; its sums are compared with what was emitted. Peers call Python.",
    )
    title = "events per second into a handler, on one core"
    return Report("events", title, COLUMNS, series, ratios, notes, missing=missing)


def _millions(series: Series, way: str) -> Any:
    spread = series[way]["rate"]
    return type(spread)(tuple(value / 1e6 for value in spread.values))


BENCHMARK = Benchmark(
    "events",
    "events per second into a Lua handler, one by one, in batches, as bytes and as JSON",
    "pyee, blinker, streamz and a bare lupa call per event",
    run,
)
