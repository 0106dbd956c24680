"""What a run came to, as lines for people. Pure: counts in, text out."""

from __future__ import annotations

from collections.abc import Iterable

from engine.values.stats import AsyncStats, EngineStats, HttpStats, StoreStats


def summary_lines(stats: EngineStats, seconds: float, *, virtual: bool = False) -> list[str]:
    """The counts as aligned lines, plain text. `seconds` is how long reading the capture took.

    Events, messages, script errors and losses are left out when there were none; and where time is `virtual`, what the
    clock of the machine says, and packets that there were not.
    """
    packets = [
        ("packets", _packets(stats, seconds)),
        ("captures", f"{stats.source.files:,}" if stats.source.files > 1 else ""),
        ("flows", f"{stats.decode.flows:,}"),
        ("HTTP requests", f"{stats.http.requests:,}"),
        ("files", _files(stats.http)),
    ]
    rows = [
        *(packets if stats.decode.packets or not virtual else ()),
        ("alerts", f"{stats.alerts:,}"),
        ("resources", f"{stats.resources:,}"),
        ("async tasks", _tasks(stats.tasks)),
        ("async times", _times(stats.tasks)),
        ("stored", _stored(stats.store)),
        ("events", _events(stats)),
        ("messages", _messages(stats)),
        ("script errors", f"{stats.script_errors:,}" if stats.script_errors else ""),
        ("slowest hook", "" if virtual else _slowest(stats)),
        ("not decoded", counted(stats.decode.undecoded, "packet") if stats.decode.undecoded else ""),
        ("losses", ", ".join(_losses(stats))),
    ]
    shown = [(label, text) for label, text in rows if text]
    width = max(len(label) for label, _ in shown)
    return [f"{label:<{width}}  {text}" for label, text in shown]


def amount(size: float) -> str:
    """Bytes in decimal units: ``912 bytes``, ``2.3 kB``, ``6.9 MB``, ``1.2 GB``."""
    if size < 1_000:
        return "1 byte" if size == 1 else f"{size:.0f} bytes"
    scaled = size / 1_000
    for unit in ("kB", "MB"):
        if scaled < 999.95:
            return f"{scaled:.1f} {unit}"
        scaled /= 1_000
    return f"{scaled:,.1f} GB"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``850 µs``, ``12.3 ms``, ``4.25 s``, ``3 min 20 s``."""
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.999_95:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 119.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def counted(number: int, noun: str) -> str:
    """A count with its noun: ``1 packet``, ``1,234 packets``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _packets(stats: EngineStats, seconds: float) -> str:
    decode = stats.decode
    text = f"{decode.packets:,}, {amount(decode.wire_bytes)}"
    if not decode.packets or seconds <= 0:
        return text
    rate = f"{decode.packets / seconds:,.0f} packets/s, {decode.wire_bytes / seconds / 1e6:,.1f} MB/s"
    return f"{text} in {duration(seconds)}: {rate}"


def _files(http: HttpStats) -> str:
    if not http.files:
        return "0"
    partial = f", {http.files_partial:,} partial" if http.files_partial else ""
    return f"{http.files:,}: {http.files_complete:,} complete{partial}, {amount(http.file_bytes)}"


def _stored(store: StoreStats) -> str:
    if not store.seen:
        return ""
    text = f"{counted(store.packets, 'packet')}, {amount(store.bytes)} in {counted(store.files, 'file')}"
    return f"{text}; {store.shortened:,} without payload" if store.shortened else text


def _tasks(tasks: AsyncStats) -> str:
    if not tasks.submitted:
        return "0"
    late = f" ({tasks.timed_out:,} timed out)" if tasks.timed_out else ""
    rest = _nonzero(
        (
            (tasks.failed, f"failed{late}"),
            (tasks.rejected, "rejected"),
            (tasks.abandoned, "abandoned"),
            (tasks.pending, "pending"),
        )
    )
    return ", ".join([f"{tasks.submitted:,}: {tasks.completed:,} completed", *rest])


def _times(tasks: AsyncStats) -> str:
    """Half of the tasks, and 99 of 100, waited and ran at most so long."""
    shown = [
        f"{verb} {duration(times.percentile(50))}, {duration(times.percentile(99))} (p50, p99)"
        for verb, times in (("waited", tasks.waits), ("ran", tasks.runs))
        if times.count
    ]
    return "; ".join(shown)


def _events(stats: EngineStats) -> str:
    events = stats.events
    if not events.received:
        return ""
    rest = _nonzero(((events.failed, "failed"), (events.dropped, "dropped"), (events.pending, "pending")))
    return ", ".join([f"{events.received:,}: {events.handled:,} handled", *rest])


def _messages(stats: EngineStats) -> str:
    messages = stats.messages
    if not messages.posted:
        return ""
    rest = _nonzero(((messages.failed, "failed"), (messages.dropped, "dropped"), (messages.pending, "pending")))
    return ", ".join([f"{messages.posted:,}: {messages.delivered:,} delivered", *rest])


def _slowest(stats: EngineStats) -> str:
    slowest = stats.slowest_hook
    return f"{slowest[0]}, {duration(slowest[1])}" if slowest else ""


def _losses(stats: EngineStats) -> list[str]:
    decode, http, tasks = stats.decode, stats.http, stats.tasks
    causes = (
        (stats.source.dropped, "packet", " dropped before they were read"),
        (stats.source.skipped, "file", " skipped"),
        (decode.malformed, "malformed packet", ""),
        (decode.cut, "packet", " cut by the capture"),
        (decode.too_deep, "packet", " past the limit on tunnels and layers"),
        (decode.fragments_dropped + decode.fragments_timed_out, "IP fragment", " of no whole datagram"),
        (decode.gaps, "gap", f" in TCP streams ({amount(decode.gap_bytes)})"),
        (decode.flows_rejected, "packet", " past the flow limit"),
        (decode.streams_rejected, "TCP stream", " past the stream limit"),
        (decode.held_over, "hole", " in TCP streams given up at the limit on bytes out of order"),
        (http.malformed, "connection", " given up as not HTTP"),
        (http.fields_cut, "HTTP head", " with more fields than are read"),
        (http.decode_errors, "body content", " that can't be decoded"),
        (http.bombs, "decompression", " cut at the limit"),
        (stats.dns.cut, "DNS message", " cut short"),
        (stats.tls.oversized, "TLS message", " past the limit"),
        (stats.tls.cut, "certificate chain", " past the limit"),
        (http.write_errors, "file write", " failed"),
        (tasks.late_results, "async result", " too late"),
        (stats.records.dropped, "record", " dropped"),
        (stats.store.lost, "packet", " not stored: writing failed"),
        (sum(each.windows_lost for each in stats.sinks), "window", " not stored"),
        (sum(each.lost for each in stats.sinks), "record", " not stored"),
        (stats.flush.dropped, "window", " that no script was asked about"),
        (stats.flush.unvoted, "item", " past the limit on what waits for a flush"),
        (stats.flush.updates_dropped, "counter update", " past the limit on keys in a second"),
        (stats.flow_updates_dropped, "flow update", " past the limits"),
    )
    return [f"{counted(number, noun)}{rest}" for number, noun, rest in causes if number]


def _nonzero(parts: Iterable[tuple[int, str]]) -> list[str]:
    return [f"{number:,} {name}" for number, name in parts if number]
