"""The summary of a run: which lines there are, what they say, how they align."""

from __future__ import annotations

import pytest

from engine.cli.summary import amount, duration, summary_lines
from engine.values.histogram import Recorder
from engine.values.stats import (
    AsyncStats,
    DecodeStats,
    DnsStats,
    EngineStats,
    EventStats,
    HookStats,
    HttpStats,
    MessageStats,
    PluginStats,
    RecordStats,
    TlsStats,
)


def rows(stats: EngineStats, seconds: float = 1.0) -> dict[str, str]:
    """The text of each line by its label."""
    found = [line.split("  ", 1) for line in summary_lines(stats, seconds)]
    return {label: text.strip() for label, text in found}


def test_an_empty_run_says_so_and_no_more() -> None:
    assert summary_lines(EngineStats(), 0.0) == [
        "packets        0, 0 bytes",
        "flows          0",
        "HTTP requests  0",
        "files          0",
        "alerts         0",
        "resources      0",
        "async tasks    0",
    ]


def test_rates_are_over_the_seconds_given() -> None:
    stats = EngineStats(decode=DecodeStats(packets=3_000_000, wire_bytes=2_400_000_000, flows=1_234))
    found = rows(stats, 1.5)
    assert found["packets"] == "3,000,000, 2.4 GB in 1.50 s: 2,000,000 packets/s, 1,600.0 MB/s"
    assert found["flows"] == "1,234"


def test_files_tell_whole_from_partial() -> None:
    http = HttpStats(requests=30, files=25, files_complete=23, files_partial=2, file_bytes=1_500_000)
    assert rows(EngineStats(http=http))["files"] == "25: 23 complete, 2 partial, 1.5 MB"


def test_every_outcome_of_tasks_is_named() -> None:
    tasks = AsyncStats(
        submitted=20, completed=10, failed=4, timed_out=1, rejected=3, abandoned=2, pending=1, late_results=1
    )
    found = rows(EngineStats(tasks=tasks))
    expected = "20: 10 completed, 4 failed (1 timed out), 3 rejected, 2 abandoned, 1 pending"
    assert found["async tasks"] == expected
    assert found["losses"] == "1 async result too late"


def test_how_long_tasks_waited_and_ran() -> None:
    waits, runs = Recorder(), Recorder()
    waits.add(0.0009, 99)
    waits.add(3.0, 1)
    runs.add(0.5)
    tasks = AsyncStats(submitted=100, completed=100, waits=waits.snapshot(), runs=runs.snapshot())
    assert (
        rows(EngineStats(tasks=tasks))["async times"]
        == "waited 1.0 ms, 1.0 ms (p50, p99); ran 524.3 ms, 524.3 ms (p50, p99)"
    )


def test_events_and_messages_appear_when_there_were_any() -> None:
    stats = EngineStats(events=EventStats(9, 6, 2, 1, 0), messages=MessageStats(5, 3, 1, 0, 1))
    found = rows(stats)
    assert found["events"] == "9: 6 handled, 1 failed, 2 dropped"
    assert found["messages"] == "5: 3 delivered, 1 dropped, 1 pending"


def test_the_slowest_hook_is_named_with_its_time() -> None:
    hooks = (HookStats("onfile_http", calls=9, slowest=0.0123), HookStats("filter", calls=9, slowest=0.001))
    stats = EngineStats(plugins=(PluginStats("x", "x.lua", "filex_monitor", hooks),))
    assert rows(stats)["slowest hook"] == "x.lua filex_monitor.onfile_http, 12.3 ms"


def test_losses_are_told_by_cause() -> None:
    stats = EngineStats(
        decode=DecodeStats(
            malformed=1,
            cut=2,
            undecoded=3,
            gaps=4,
            gap_bytes=2_800,
            flows_rejected=5,
            streams_rejected=6,
            held_over=7,
            too_deep=1,
            fragments_dropped=2,
            fragments_timed_out=3,
        ),
        http=HttpStats(malformed=1, decode_errors=1, bombs=2, write_errors=3),
        dns=DnsStats(cut=1),
        tls=TlsStats(oversized=2, cut=3),
        records=RecordStats(dropped=1),
        script_errors=7,
    )
    found = rows(stats)
    assert found["losses"].split(", ") == [
        "1 malformed packet",
        "2 packets cut by the capture",
        "1 packet past the limit on tunnels and layers",
        "5 IP fragments of no whole datagram",
        "4 gaps in TCP streams (2.8 kB)",
        "5 packets past the flow limit",
        "6 TCP streams past the stream limit",
        "7 holes in TCP streams given up at the limit on bytes out of order",
        "1 connection given up as not HTTP",
        "1 body content that can't be decoded",
        "2 decompressions cut at the limit",
        "1 DNS message cut short",
        "2 TLS messages past the limit",
        "3 certificate chains past the limit",
        "3 file writes failed",
        "1 record dropped",
    ]
    assert found["not decoded"] == "3 packets"
    assert found["script errors"] == "7"


def test_texts_start_in_one_column() -> None:
    lines = summary_lines(EngineStats(script_errors=1, tasks=AsyncStats(late_results=1)), 1.0)
    width = len("HTTP requests") + 2
    assert all(line[width - 1] == " " and line[width] != " " for line in lines)
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5_000_000_000_000, "5,000.0 GB"),
    ],
)
def test_amount(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (0.000_85, "850 µs"),
        (0.000_999_9, "1.0 ms"),
        (0.0123, "12.3 ms"),
        (0.999_97, "1.00 s"),
        (119.9, "119.90 s"),
        (119.999, "2 min 0 s"),
        (3_720.0, "62 min 0 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
