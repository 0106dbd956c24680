"""A packet hook in a plugin state of its own, and a decoder that makes the frames it is fed."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.source import open_capture
from engine.values.config import CaptureLimits
from engine.values.records import Flow
from tests.capture.frames import NAMES, Frame
from tests.capture.packets import pcap
from tests.support import PluginLua

GUIDS = {
    "Ethernet": "{974FB098-DE46-45DB-94DA-8D64A3BBCDE5}",
    "IPv4": "{0A2C724B-5B9F-4BA6-9C97-B05080558574}",
    "IPv6": "{85C0CCED-DA8D-4029-924A-A6AB87F62EF8}",
    "ICMP": "{7DDD65F2-A316-43B5-A103-368E700E045E}",
    "UDP": "{14D7AB53-CC51-47E9-8814-9C06AAE60189}",
    "TCP": "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}",
    "SCTP": "{78739B11-2DA0-47E5-BB82-C9AD991273D9}",
    "VLAN": "{2A216746-A9AA-41B6-95E3-639860F28D64}",
    "LLC": "{BB69ABEA-3E4A-4230-8691-2A040E155BB3}",
    "PPP": "{4FDBF5A6-2420-4D86-BCF5-EAD4E46E0C45}",
    "SLL": "{A42EDB16-4F24-4458-AE6E-0974989D0524}",
    "SLL2": "{24A815A9-ECAE-4577-AE98-9A6B90135A8D}",
    "Loopback": "{66408476-4095-42D3-BD3D-B67CF0BC3FF2}",
    "ARP": "{FAD7670E-E895-453E-8715-AA758C5E265D}",
}


def counter(body: str, protocol: str = "Ethernet", *, before: str = "") -> str:
    """A script with a simplecounter; its hook has `engine`, `layer`, and `packet`."""
    guid = GUIDS.get(protocol, protocol)
    return (
        f'{before}\nTrisulPlugin = {{ id = {{ name = "c" }}, simplecounter = {{ protocol_guid = "{guid}", '
        f"onpacket = function(engine, layer) local packet = layer:packet() {body}\nend }} }}"
    )


@contextmanager
def batches(capture: bytes | Path, *, step: int = 1000) -> Iterator[tuple[Iterator[Batch], Decoder]]:
    """The batches of a capture, with frames, and the decoder that makes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = capture if isinstance(capture, Path) else Path(folder) / "x.pcap"
        if isinstance(capture, bytes):
            path.write_bytes(capture)
        decoder = Decoder(CaptureLimits(), frames=True)
        try:
            with open_capture(path) as mapped:
                decoder.begin(mapped)
                yield _steps(decoder, step), decoder
                while not decoder.finish().done:
                    pass
        finally:
            decoder.close()


def _steps(decoder: Decoder, step: int) -> Iterator[Batch]:
    done = False
    while not done:
        batch = decoder.step(step)
        done = batch.done
        yield batch


class Hook:
    """A script with a simplecounter, fed by hand."""

    def __init__(self, script: str) -> None:
        self.lua = PluginLua()
        assert self.lua.load(script, "hook.lua", "simplecounter") is None

    def feed(self, address: int, count: int) -> None:
        """Run the hook over frames in memory."""
        self.lua.host[b"packets"](address, count, 0, False)

    def told(self) -> list[str]:
        """What the script logged since the last call."""
        lines = [line.decode("latin-1") for _, line in self.lua.logged]
        self.lua.logged.clear()
        return lines


def told_of(capture: bytes | Path, body: str, protocol: str = "Ethernet", *, before: str = "") -> list[str]:
    """What a hook logs over a capture; it must not raise."""
    hook = Hook(counter(body, protocol, before=before))
    with batches(capture) as (found, _):
        for batch in found:
            hook.feed(batch.frames, batch.frame_count)
    assert hook.lua.errors() == []
    return hook.told()


def told_of_packet(packet: bytes, body: str, protocol: str = "Ethernet", *, wire: int | None = None) -> str:
    """The one line that a hook logs about one packet."""
    [line] = told_of(pcap([(1.25, packet, wire or len(packet))]), body, protocol)
    return line


def keys_and_flows(capture: bytes | Path) -> tuple[list[tuple[int, str]], list[Flow]]:
    """Number of the flow and its key, as a hook sees it, of each packet; and the flow records."""
    hook = Hook(counter("T.loginfo(layer:flowkey())", "Ethernet"))
    numbers: list[int] = []
    flows: list[Flow] = []
    with batches(capture) as (found, decoder):
        for batch in found:
            frames = (Frame * batch.frame_count).from_address(batch.frames)
            numbers += [each.flow for each in frames if "Ethernet" in _names(each)]
            hook.feed(batch.frames, batch.frame_count)
            flows += decoder.flows_over(batch)
        flows += [flow for each in decoder.flow_records() for flow in each]
    return list(zip(numbers, hook.told(), strict=True)), flows


def _names(frame: Frame) -> list[str]:
    return [NAMES[layer.protocol] for layer in frame.layer[: frame.layer_count]]


def copy_of(batch: Batch) -> ctypes.Array[Frame]:
    """The frames of a batch in memory of their own; the bytes stay where they are."""
    return (Frame * batch.frame_count).from_buffer_copy(
        ctypes.string_at(batch.frames, batch.frame_count * ctypes.sizeof(Frame))
    )
