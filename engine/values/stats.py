"""Counts of a running engine, as frozen snapshots.

Each group closes on itself: what came in equals what was handled, dropped, failed and still waits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from engine.values.histogram import Histogram


@dataclass(frozen=True, slots=True)
class DecodeStats:
    """Packets, flows and TCP streams. packets = decoded + malformed + undecoded."""

    packets: int = 0
    wire_bytes: int = 0
    captured_bytes: int = 0
    cut: int = 0
    """Packets shorter in the capture than on the wire."""
    decoded: int = 0
    """Packets with a readable network header, IP or ARP."""
    malformed: int = 0
    """Packets and capture records that lie about their lengths or end too early."""
    undecoded: int = 0
    """Packets of a link type or network protocol that is not decoded."""
    fragments: int = 0
    """IP fragments. fragments = held + reassembled + dropped + timed out."""
    fragments_held: int = 0
    """Waiting for others of their datagram."""
    fragments_reassembled: int = 0
    fragments_dropped: int = 0
    """Repeated, contradicting others, or given up at a limit."""
    fragments_timed_out: int = 0
    """Of datagrams that were not complete in time, or when the capture ended."""
    datagrams: int = 0
    """Put together from fragments."""
    too_deep: int = 0
    """Packets with more tunnels than are followed, or more layers than are listed."""
    flows: int = 0
    """flows = live + closed + timed out."""
    flows_live: int = 0
    """In the flow table; of a source that is over, those that were there at its end."""
    flows_closed: int = 0
    """Over because their TCP connection was closed or reset."""
    flows_timed_out: int = 0
    """Over because no packet came for too long."""
    flows_rejected: int = 0
    """Packets not counted to a flow because the table was full."""
    segments: int = 0
    """TCP segments with payload."""
    streams: int = 0
    streams_rejected: int = 0
    """TCP connections that were not put in order, as there were too many at once."""
    retransmitted: int = 0
    overlapping: int = 0
    out_of_order: int = 0
    held_over: int = 0
    """Holes in TCP streams that were given up at a limit, as too much waited behind them."""
    gaps: int = 0
    gap_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceStats:
    """What sources gave, before packets are decoded."""

    files: int = 0
    """Capture files that were read."""
    skipped: int = 0
    """Files that were passed over, as they are no captures or can't be read."""
    received: int = 0
    """Packets that the kernel, or the program, had for us; of these,"""
    dropped: int = 0
    """so many found no room in the ring, or the feed."""


@dataclass(frozen=True, slots=True)
class HttpStats:
    """HTTP messages and bodies. files = files_complete + files_partial."""

    requests: int = 0
    responses: int = 0
    malformed: int = 0
    """Connections given up because what came was not HTTP after all."""
    upgrades: int = 0
    """Connections left alone after an upgrade or CONNECT."""
    fields_cut: int = 0
    """Heads with more fields than are read."""
    files: int = 0
    files_complete: int = 0
    files_partial: int = 0
    file_bytes: int = 0
    decode_errors: int = 0
    """Bodies whose content encoding was broken or unknown."""
    bombs: int = 0
    """Bodies cut at the decompression limit."""
    write_errors: int = 0
    """Bodies or parts that could not be written to the ramfs directory."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Packets for the store. seen = packets + skipped + lost + pending."""

    seen: int = 0
    packets: int = 0
    """Written."""
    skipped: int = 0
    """Not chosen, or past what is wanted of their flow."""
    lost: int = 0
    """Chosen, but they could not be written."""
    pending: int = 0
    shortened: int = 0
    """Chosen ones of which only the headers are stored."""
    bytes: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker with its Lua state."""

    kind: str
    """``"thread"`` or ``"process"``."""
    state: str
    """``"running"``, ``"idle"``, or ``"stuck"`` in a task past its timeout that nothing can end."""
    tasks_run: int = 0
    states_built: int = 0
    """How many Lua states there were, one after the other."""
    memory_bytes: int = 0
    """What the state used when a run of tasks ended last."""


@dataclass(frozen=True, slots=True)
class DnsStats:
    """DNS messages, over UDP and TCP."""

    queries: int = 0
    responses: int = 0
    malformed: int = 0
    """Messages, also some of those above, of which not all could be read."""
    cut: int = 0
    """Of those above, those truncated by their sender, or over a limit."""
    gaps: int = 0
    """Messages over TCP that bytes are missing of."""


@dataclass(frozen=True, slots=True)
class TlsStats:
    """TLS handshakes on TCP."""

    connections: int = 0
    """Connections recognised as TLS."""
    client_hellos: int = 0
    server_hellos: int = 0
    chains: int = 0
    malformed: int = 0
    """Hellos and chains that could not be read, and directions given up because what came was not TLS after all."""
    oversized: int = 0
    """Handshake messages over the limit, which were stepped over."""
    cut: int = 0
    """Chains of which certificates over the limit were left out."""
    gaps: int = 0
    """Directions given up because bytes of a handshake are missing."""


@dataclass(frozen=True, slots=True)
class QuicStats:
    """Client hellos in QUIC."""

    connections: int = 0
    """Clients of which a first packet could be decrypted."""
    client_hellos: int = 0
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class AsyncStats:
    """Tasks of `T.async`.

    submitted = completed + failed + rejected + abandoned + pending, and pending = queued + running.
    """

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    """Of the failed ones, those past their timeout."""
    rejected: int = 0
    abandoned: int = 0
    pending: int = 0
    queued: int = 0
    """Of the pending ones, those that no worker has taken."""
    running: int = 0
    """Of the pending ones, the others; of tasks that cross together, all that are not settled."""
    late_results: int = 0
    """Results dropped because the plugin was gone or the task had timed out."""
    stuck_threads: int = 0
    """Worker threads that would not end in time."""
    bytes_copied: int = 0
    """What file operations wrote, in bytes."""
    waits: Histogram = field(default_factory=Histogram)
    """How long tasks waited until a worker took them."""
    runs: Histogram = field(default_factory=Histogram)
    """How long tasks ran: onexecute, or the file operation. Operations done as one count with their share of it."""
    workers: tuple[WorkerStats, ...] = ()
    """The workers that there are now."""

    def __add__(self, other: AsyncStats) -> AsyncStats:
        """Both counts as one."""
        added = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return AsyncStats(**added)

    @property
    def counts(self) -> dict[str, int]:
        """What is a plain count, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, int)}


@dataclass(frozen=True, slots=True)
class EventStats:
    """Events given to `emit` and its kin. received = handled + dropped + failed + pending."""

    received: int = 0
    handled: int = 0
    dropped: int = 0
    failed: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class CallStats:
    """Calls of exposed functions. called = answered + failed + abandoned + pending."""

    called: int = 0
    answered: int = 0
    failed: int = 0
    """Wrong arguments, or the function raised, or what it returned can't cross."""
    abandoned: int = 0
    """Coroutines that the end of the engine or of the plugin came before."""
    pending: int = 0


@dataclass(frozen=True, slots=True)
class MessageStats:
    """Deliveries of messages between plugins. posted = delivered + dropped + failed + pending."""

    posted: int = 0
    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class FlushStats:
    """Flush cycles of the slow path, and what became of the keys and items in them."""

    windows: int = 0
    """Cycles that were run."""
    late: int = 0
    """Of these, those that took longer than their window."""
    waiting: int = 0
    """Windows whose cycle runs or waits."""
    dropped: int = 0
    """Windows that no script was asked about, as too many waited."""
    kept: int = 0
    """Keys, alerts, resources, documents and flows."""
    rejected: int = 0
    unvoted: int = 0
    """Items that no script was asked about, as too many waited for a flush."""
    updates_dropped: int = 0
    """Updates of counters that `onupdate` did not see, as too many keys had some in a second."""


@dataclass(frozen=True, slots=True)
class HookStats:
    """One hook of one plugin."""

    name: str
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    """The longest single call, in seconds."""


@dataclass(frozen=True, slots=True)
class PluginStats:
    """One plugin: a loaded block of a script."""

    name: str
    script: str
    block: str
    hooks: tuple[HookStats, ...] = ()
    tasks: AsyncStats = field(default_factory=AsyncStats)


@dataclass(frozen=True, slots=True)
class RecordStats:
    """Records made, and what subscriptions lost because they were full."""

    made: int = 0
    delivered: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SinkStats:
    """One sink that counts what it is given.

    records = stored + pending + waiting + failed + dropped, and windows likewise.
    """

    name: str = ""
    """What it writes to."""
    records: int = 0
    stored: int = 0
    """Records that are there for good."""
    pending: int = 0
    """Records that were written, and are there when their window is."""
    waiting: int = 0
    """Records that its thread has not come to."""
    failed: int = 0
    """Records that storing failed at, with those of the same window before them."""
    dropped: int = 0
    """Records that came after that."""
    windows: int = 0
    windows_stored: int = 0
    windows_waiting: int = 0
    windows_failed: int = 0
    windows_dropped: int = 0
    waits: int = 0
    """How often the engine had to wait for room."""
    seconds: float = 0.0
    """What its thread spent writing."""

    @property
    def lost(self) -> int:
        """Records that are not and will not be there."""
        return self.failed + self.dropped

    @property
    def windows_lost(self) -> int:
        """Windows that are not and will not be there."""
        return self.windows_failed + self.windows_dropped


@dataclass(frozen=True, slots=True)
class WindowStats:
    """Windows of counters. closed = handled + failed + waiting, where `Engine.on_window` is set."""

    closed: int = 0
    handled: int = 0
    failed: int = 0
    """`on_window` raised, or was not called because the engine stopped."""
    waiting: int = 0
    """For `on_window`, the one it is at among them."""
    rejected: int = 0
    """Updates of keys past `Config.window_keys`, which are in the totals only."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Everything that is counted. Taken at one moment, on the loop thread."""

    source: SourceStats = field(default_factory=SourceStats)
    decode: DecodeStats = field(default_factory=DecodeStats)
    http: HttpStats = field(default_factory=HttpStats)
    dns: DnsStats = field(default_factory=DnsStats)
    tls: TlsStats = field(default_factory=TlsStats)
    quic: QuicStats = field(default_factory=QuicStats)
    events: EventStats = field(default_factory=EventStats)
    calls: CallStats = field(default_factory=CallStats)
    messages: MessageStats = field(default_factory=MessageStats)
    tasks: AsyncStats = field(default_factory=AsyncStats)
    records: RecordStats = field(default_factory=RecordStats)
    store: StoreStats = field(default_factory=StoreStats)
    flush: FlushStats = field(default_factory=FlushStats)
    windows: WindowStats = field(default_factory=WindowStats)
    sinks: tuple[SinkStats, ...] = ()
    """Those that count."""
    flow_updates_dropped: int = 0
    """What scripts said of flows past the limits on how much of that is kept."""
    alerts: int = 0
    resources: int = 0
    script_errors: int = 0
    plugins: tuple[PluginStats, ...] = ()

    @property
    def slowest_hook(self) -> tuple[str, float] | None:
        """Name and seconds of the longest single hook call, as ``script block.hook``."""
        calls = [
            (f"{plugin.script} {plugin.block}.{hook.name}", hook.slowest)
            for plugin in self.plugins
            for hook in plugin.hooks
            if hook.calls
        ]
        return max(calls, key=lambda call: call[1], default=None)

    def flat(self) -> dict[str, int]:
        """Every count under one name: packets, flows and HTTP as they are, the others with their group before them."""
        http = asdict(self.http)
        counts: dict[str, int] = {**asdict(self.decode), "http_malformed": http.pop("malformed"), **http}
        groups = {name: asdict(getattr(self, name)) for name in ("dns", "tls", "quic", "source", "events")}
        groups |= {"calls": asdict(self.calls), "messages": asdict(self.messages), "tasks": self.tasks.counts}
        groups |= {"records": asdict(self.records), "store": asdict(self.store)}
        groups |= {"flush": asdict(self.flush), "windows": asdict(self.windows)}
        for group, values in groups.items():
            counts.update({f"{group}_{name}": value for name, value in values.items()})
        for each in fields(SinkStats):
            if each.type == "int":
                counts[f"sinks_{each.name}"] = sum(getattr(sink, each.name) for sink in self.sinks)
        own = ("alerts", "resources", "script_errors", "flow_updates_dropped")
        return counts | {name: getattr(self, name) for name in own}
