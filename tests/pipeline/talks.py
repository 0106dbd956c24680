"""Captures of TCP conversations and datagrams, said line by line, and scripts that write down what they are told."""

from __future__ import annotations

from pathlib import Path

from tests.capture.packets import ACK, CLIENT, FIN, SERVER, Record, handshake, pcap, tcp
from tests.scripts import plugin, write

FLOW = "06A:0A.00.00.01:p-9C40_0A.00.00.02:p-0050"
ALL = ("filter", "onnewflow", "onpayload", "onattribute", "onterminateflow")

_ARGUMENTS = {
    "filter": "engine, ts, flow",
    "onnewflow": "engine, ts, flow",
    "onpayload": "engine, ts, flow, direction, seekpos, buffer",
    "onattribute": "engine, ts, flow, name, value",
    "onterminateflow": "engine, ts, flow",
}

_TELL = {
    "filter": "tell('filter', ts, flow:id())",
    "onnewflow": "tell('new', ts, flow:id())",
    "onpayload": "tell('payload', ts, direction, seekpos, buffer:tostring())",
    "onattribute": "tell('attribute', ts, name, value)",
    "onterminateflow": "tell('end', ts, flow:id())",
}

TELL = """
function tell(...)
  local told = { ... }
  for at, each in ipairs(told) do told[at] = tostring(each) end
  T.loginfo((table.concat(told, " "):gsub("%c", "~")))
end
"""


class Talk:
    """One TCP connection; each call is a packet, a tenth of a second after the last."""

    def __init__(self, *, start: float = 1000.5, port: int = CLIENT[1], server_port: int = SERVER[1]) -> None:
        self.client, self.server = (CLIENT[0], port), (SERVER[0], server_port)
        self.time = start
        self.seqs = [101, 201]
        self.records: list[Record] = []

    def begin(self) -> Talk:
        """The handshake, when the ports are the usual ones."""
        assert (self.client, self.server) == (CLIENT, SERVER)
        self.records += [(self.time, frame) for _, frame, *_ in handshake(100, 200)]
        return self

    def say(self, direction: int, data: bytes, *, flags: int = ACK) -> Talk:
        """Bytes of the client (0) or the server (1)."""
        self.time += 0.1
        ends = (self.client, self.server) if direction == 0 else (self.server, self.client)
        seq, ack = self.seqs[direction], self.seqs[1 - direction]
        self.records.append((self.time, tcp(*ends, seq, data, flags, ack)))
        self.seqs[direction] += len(data) + bool(flags & FIN)
        return self

    def lose(self, direction: int, length: int) -> Talk:
        """Bytes that were not captured."""
        self.seqs[direction] += length
        return self

    def finish(self) -> Talk:
        """Both sides are done."""
        return self.say(0, b"", flags=FIN | ACK).say(1, b"", flags=FIN | ACK)


def capture_of(folder: Path, *talks: Talk | list[Record], name: str = "talk.pcap") -> Path:
    """A capture of talks and other packets, in their order of time."""
    records = [each for talk in talks for each in (talk.records if isinstance(talk, Talk) else talk)]
    path = folder / name
    path.write_bytes(pcap(sorted(records, key=lambda each: each[0])))
    return path


def handler(*hooks: str, rest: str = "", **bodies: str) -> str:
    """A reassembly_handler that logs each call of `hooks`; `bodies` are hooks with a body of their own."""
    written = {name: _TELL[name] for name in hooks} | bodies
    if "filter" in hooks and "filter" not in bodies:
        written["filter"] += " return true"
    functions = ",\n".join(f"{name} = function({_ARGUMENTS[name]}) {body} end" for name, body in written.items())
    return TELL + plugin(f"reassembly_handler = {{ {functions} }},\n{rest}")


def flow_monitor(body: str = "tell(flow:id(), ts, name, value:size(), value:tostring())") -> str:
    """A flowmonitor; its hook has `engine`, `flow`, `ts`, `name` and `value`."""
    hook = f"onflowattribute = function(engine, flow, ts, name, value) {body} end"
    return TELL + plugin(f"flowmonitor = {{ {hook} }}")


def scripts_of(folder: Path, *texts: str) -> list[Path]:
    """Scripts as files, in this order."""
    return [write(folder, text, f"{number}.lua") for number, text in enumerate(texts)]
