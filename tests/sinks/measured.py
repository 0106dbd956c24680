"""Windows and records whose contents follow from their number; as a program it feeds them to a database.

`python measured.py FILE WINDOWS` writes a dot to stdout for each step, so that who reads them can end it at any.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

from engine.sinks.sqlite import SqliteSink
from engine.values.records import Alert, Document, Flow, Record
from engine.values.windows import GROUP_TOTALS, CounterGroup, GroupWindow, Meter, MeterType, Toppers, Window

START = 1_767_322_800.0  # 2026-01-02T03:00:00Z
ALERTS, KEYS = 30, 200
HOSTS = CounterGroup(
    "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}",
    "Hosts",
    "addresses",
    (
        Meter(0, MeterType.RATE_COUNTER, "Total", units="Bps", top=3),
        Meter(1, MeterType.COUNTER, "Packets"),
        Meter(2, MeterType.MAXIMUM, "Longest wait", units="ms"),
    ),
    labels={"0A.00.00.01": "first"},
)


def start_of(number: int) -> float:
    return START + 60.0 * number


def key_of(number: int) -> str:
    return f"0A.00.{number >> 8:02X}.{number & 255:02X}"


def records_of(number: int) -> Iterator[Record]:
    """The records of a window."""
    for at in range(ALERTS):
        time = start_of(number) + at
        yield Alert("{A}", "flow", "sig", "class", at, f"{number}:{at}", "", "x.lua", time, {"n": at})
        yield Document("{D}", "flow", f"{number}.{at}", f"GET /index{at}.html from host{number}.example", time)
    yield flow(number)


def flow(number: int) -> Flow:
    start = start_of(number)
    return Flow(f"f{number}", "tcp", "10.0.0.1", number, "10.0.0.2", 80, 1, 2, 100, 200, start, start + 5)


def window(number: int, keys: int = KEYS) -> Window:
    values = {key_of(at): (float(at), float(number), float(at * number)) for at in range(keys)}
    best = tuple((key_of(keys - 1 - at), float(keys - 1 - at)) for at in range(3))
    group = GroupWindow(
        HOSTS,
        values | {GROUP_TOTALS: (1e6, 1e3, 0.0)},
        {key_of(2): "second.example"},
        (Toppers(0, best, error=0.5),),
        rejected=number,
    )
    return Window(number, start_of(number), start_of(number + 1), (group,))


async def feed(path: str, windows: int) -> None:
    sink = SqliteSink(path, source="measured")
    for number in range(windows):
        for at, record in enumerate(records_of(number)):
            sink.write(record)
            if at % 20 == 0:
                await sink.flush()
                step()
        sink.write_window(window(number))
        await sink.flush()
        step()
    sink.write(flow(windows))
    step()
    await sink.close()
    step()


def step() -> None:
    sys.stdout.write(".")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(feed(sys.argv[1], int(sys.argv[2])))
