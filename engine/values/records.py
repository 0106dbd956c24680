"""Records: the typed values that leave the engine. Times are seconds since the epoch, bytes are wire bytes.

`kind` is the name under which a record is subscribed to and the first key of its JSON line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, get_args


@dataclass(frozen=True, slots=True)
class Flow:
    """One 5-tuple, both directions. A and Z are ordered as in the flow key (spec 3.2)."""

    kind: ClassVar[str] = "flow"
    id: str
    proto: str
    a_ip: str
    a_port: int
    z_ip: str
    z_port: int
    a_packets: int
    z_packets: int
    a_bytes: int
    z_bytes: int
    start: float
    end: float
    tags: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What scripts added with `add_flow_attribute`, by name."""
    meters: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Meters 4 to 7 as scripts updated them; 0 to 3 are in the counts above."""
    duration: float | None = None
    """Seconds, where a script said so."""
    terminated: bool = False
    """A script called `terminate_flow`."""
    state: int = 1
    """Bits of spec 3.3: 2 for a SYN seen, 0x40 for a FIN, 0x80 for a reset, and so on."""
    a_payload: int = 0
    """Bytes that TCP segments from A carried, repeated ones among them; 0 for other protocols, as those below."""
    z_payload: int = 0
    setup_rtt: int = 0
    """Microseconds from the SYN to the ACK that ended the handshake; 0 when that was not seen."""
    retransmissions: int = 0
    """Segments of both ends that carried bytes, a SYN or a FIN which had been seen before."""


@dataclass(frozen=True, slots=True)
class Http:
    """One HTTP exchange; `status` is 0 when its response was not captured."""

    kind: ClassVar[str] = "http"
    flow: str
    method: str
    host: str
    uri: str
    status: int
    content_type: str
    time: float


@dataclass(frozen=True, slots=True)
class File:
    """One HTTP body, decoded. `size` is in bytes; `complete` is false after a gap, a cut or a decode error."""

    kind: ClassVar[str] = "file"
    flow: str
    path: str
    uri: str
    size: int
    direction: str
    """``"request"`` or ``"response"``."""
    method: str
    host: str
    status: int
    content_type: str
    complete: bool
    reason: str
    """Why it is not complete: ``""``, ``"gap"``, ``"cut"``, ``"decode"`` or ``"limit"``."""
    time: float


@dataclass(frozen=True, slots=True)
class Alert:
    """What `engine:add_alert` and its kin recorded. `flow` is ``""`` when the alert is tied to none."""

    kind: ClassVar[str] = "alert"
    group: str
    flow: str
    sigid: str
    classification: str
    priority: int
    message: str
    status: str
    script: str
    time: float
    extra: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    """What an input filter's alert had beyond that: ``source_ip``, ``sig_rev``, ``event_id`` and so on."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What `engine:add_resource` recorded, or the platform found; then `script` is ``""``."""

    kind: ClassVar[str] = "resource"
    group: str
    flow: str
    uri: str
    contents: str
    script: str
    time: float


@dataclass(frozen=True, slots=True)
class Document:
    """A text that the platform found: a DNS message, the headers of an HTTP message, a certificate chain."""

    kind: ClassVar[str] = "document"
    group: str
    flow: str
    id: str
    """No other document of the engine has it."""
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """What is asked. The name has no final dot (the root is ""), `type` is a name such as ``AAAA`` or ``TYPE4711``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """One record of the answer section; `data` is in the text form of zone files, names in it as in a question."""

    name: str
    type: str
    data: str
    ttl: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Dns:
    """One DNS message, a query or a response."""

    kind: ClassVar[str] = "dns"
    flow: str
    service: str
    """``"dns"``, ``"mdns"`` or ``"llmnr"``."""
    transport: str
    """``"udp"`` or ``"tcp"``."""
    id: int
    is_response: bool
    rcode: int
    questions: tuple[DnsQuestion, ...]
    answers: tuple[DnsAnswer, ...]
    whole: bool
    """All questions and answers announced are here."""
    time: float


@dataclass(frozen=True, slots=True)
class Tls:
    """One TLS handshake, as far as it was in the clear; what was not seen is empty."""

    kind: ClassVar[str] = "tls"
    flow: str
    transport: str
    """``"tcp"`` or ``"quic"``."""
    sni: str
    """The server name that the client asked for, lower case."""
    alpn: tuple[str, ...]
    """The protocols that the client offered."""
    versions: tuple[str, ...]
    """The versions that the client offered, hex as ``"0304"``, in its order."""
    version: str
    """The version that the server chose."""
    cipher: str
    """The cipher suite that the server chose, hex as ``"1301"``."""
    ja3: str
    """The MD5 form, like `ja3s`."""
    ja3s: str
    ja4: str
    subject: str
    """Of the server's certificate, as `issuer`: most general part first."""
    issuer: str
    sha1: str
    """Fingerprint of the server's certificate, hex."""
    time: float


@dataclass(frozen=True, slots=True)
class Counter:
    """What one meter of one key came to in a window, as its type says (engine/stream/meters.py)."""

    kind: ClassVar[str] = "counter"
    group: str
    key: str
    meter: int
    value: float
    time: float = 0.0
    """When the window began."""


@dataclass(frozen=True, slots=True)
class TrackedFlow:
    """One of the flows with the greatest metrics of a `flowtracker`, at the end of its bucket."""

    kind: ClassVar[str] = "tracked_flow"
    tracker: str
    """`control.name` of the script's block."""
    flow: str
    metric: float
    rank: int
    """From 1."""
    script: str
    time: float


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A label for a key (`update_key_info`), or one named attribute of it (`set_key_attribute`)."""

    kind: ClassVar[str] = "key"
    group: str
    key: str
    name: str
    """``"label"``, ``"description"`` or the attribute's name."""
    value: str


@dataclass(frozen=True, slots=True)
class FlowUpdate:
    """What a script said of a flow: `name` is ``tag``, ``attribute:NAME``, ``meter:N``, ``duration``, ``terminate``."""

    kind: ClassVar[str] = "flow_update"
    flow: str
    name: str
    value: str
    script: str
    time: float


@dataclass(frozen=True, slots=True)
class Edge:
    """One directed edge between two keys (`add_edge`, `add_flow_edges`)."""

    kind: ClassVar[str] = "edge"
    from_group: str
    from_key: str
    to_group: str
    to_key: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line from a script or about one. `level` is a name of `T.K.loglevel`."""

    kind: ClassVar[str] = "log"
    level: str
    script: str
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Every count of a run, the last record of it."""

    kind: ClassVar[str] = "summary"
    packets: int
    seconds: float
    counts: dict[str, int]


Record = (
    Flow
    | Http
    | File
    | Dns
    | Tls
    | Alert
    | Resource
    | Document
    | Counter
    | TrackedFlow
    | KeyInfo
    | FlowUpdate
    | Edge
    | Log
    | Summary
)

RECORD_TYPES: dict[str, type[Record]] = {each.kind: each for each in get_args(Record)}


def as_mapping(record: Record) -> dict[str, Any]:
    """The record as a plain mapping, `kind` first; a summary's counts are laid flat beside `packets`."""
    values: dict[str, Any] = {"kind": record.kind}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name == "counts":
            values.update(value)
        elif isinstance(value, tuple):
            values[each.name] = [_plain(item) for item in value]
        else:
            values[each.name] = value
    return values


def _plain(item: Any) -> Any:
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item
