"""Captures of many flows, and a run over one of them in a process of its own, which tells how much memory it took.

python -m benchmarks.flow_load CAPTURE [SCRIPT]
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import Capture, Engine

_UDP, _TCP, _SYN, _ACK = 17, 6, 2, 16
_SERVER, _BEGIN = "10.255.0.1", 1_700_000_000
_SECOND_FLOWS = 65_536  # at most, as hosts are told apart by two bytes, and seconds by those before
_LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Load:
    """So many new flows in each second; of TCP they have a SYN and a segment, of UDP one datagram."""

    flows: int
    seconds: int
    tcp: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run came to. `memory` is in bytes, the most there was: private memory, without mapped files."""

    memory: int
    packets: int
    flows: int
    live: int


def write(path: Path, load: Load) -> None:
    """Write a capture. Raises `ValueError` for more flows in a second than there are addresses."""
    if load.flows > _SECOND_FLOWS:
        raise ValueError(f"{load.flows} flows in a second, there are addresses for {_SECOND_FLOWS}")
    frames = [_frame(_TCP, 1, _SYN), _frame(_TCP, 2, _ACK, b"data")] if load.tcp else [_frame(_UDP, 0, 0)]
    block = b"".join(struct.pack("<4I", 0, 0, len(each), len(each)) + each for each in frames)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
        buffer, size = bytearray(block * load.flows), len(block)
        places, at = [], 0  # where a record of a block and its source address begin
        for each in frames:
            places.append((at, at + 16 + 26))
            at += 16 + len(each)
        for _, address in places:
            buffer[address + 2 :: size] = bytes(number >> 8 for number in range(load.flows))
            buffer[address + 3 :: size] = bytes(number & 255 for number in range(load.flows))
        for second in range(load.seconds):
            for record, address in places:
                for byte, value in enumerate(struct.pack("<I", _BEGIN + second)):
                    buffer[record + byte :: size] = bytes([value]) * load.flows
                buffer[address::size] = bytes([10 + second // 250 % 100]) * load.flows
                buffer[address + 1 :: size] = bytes([second % 250]) * load.flows
            file.write(buffer)


def _frame(proto: int, seq: int, flags: int, data: bytes = b"") -> bytes:
    if proto == _TCP:
        head = struct.pack(">HHIIBBHHH", 50_000, 80, seq, 1 if flags & _ACK else 0, 0x50, flags, 8192, 0, 0)
    else:
        head = struct.pack(">HHHH", 50_000, 53, 8, 0)
    length = 20 + len(head) + len(data)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, proto, 0, b"\x0a\0\0\0", socket.inet_aton(_SERVER))
    return bytes(12) + b"\x08\x00" + ip + head + data


def measure(capture: Path, script: Path | None = None) -> Taken:
    """Run the engine over a capture in a new process. Raises `CalledProcessError` when that fails."""
    command = [sys.executable, "-m", "benchmarks.flow_load", str(capture), *([str(script)] if script else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return Taken(**json.loads(done.stdout))


def private_memory() -> int:
    """Bytes of this process that are in memory and belong to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


async def _run(capture: Path, scripts: Sequence[Path]) -> Taken:
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, private_memory())
            await asyncio.sleep(_LOOK_SECONDS)

    async with Engine(scripts) as engine:
        looking = asyncio.create_task(look())
        await engine.run(Capture(capture))
        looking.cancel()
        decode = engine.stats.decode
    return Taken(most, decode.packets, decode.flows, decode.flows_live)


if __name__ == "__main__":
    taken = asyncio.run(_run(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]]))
    print(json.dumps({"memory": taken.memory, "packets": taken.packets, "flows": taken.flows, "live": taken.live}))
