"""Live packets on Linux: an AF_PACKET socket whose TPACKET_V3 ring the kernel fills, decoded block by block in place.

A block goes back to the kernel when all of its packets are decoded: nothing may point into it then.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine.capture.batches import Batch
from engine.capture.decoder import Decoder
from engine.capture.reel import Reel
from engine.values.errors import CaptureError
from engine.values.stats import SourceStats

# From linux/if_packet.h, linux/if_ether.h and linux/if_arp.h; Python's socket module lacks most of them.
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V3: Final = 2
_PACKET_MR_PROMISC: Final = 1
_ETH_P_ALL: Final = 3
_USER: Final = 1  # TP_STATUS_USER: the block is ours
_KERNEL: Final = 0
_ETHERNET, _LOOPBACK, _RAW = 1, 772, {65534, 512, 768, 769, 776, 778, 519}  # ARPHRD_; those whose packets begin with IP
_LINK_ETHERNET, _LINK_RAW = 1, 101  # as in captures

_BLOCK_BYTES: Final = 1 << 20
_FRAME_BYTES: Final = 1 << 11  # says nothing in version 3, but must divide the block
_RETIRE_MS: Final = 50  # after which a block is given to us though it is not full
_STATUS, _BLOCK_LENGTH = 8, 20  # offsets in struct tpacket_block_desc
_QUIET_SECONDS: Final = 1.0  # without packets, after which stream time goes on by the clock
_LAG_SECONDS: Final = 1.0  # that packets may come late


class Ring:
    """A socket bound to an interface, and the ring in its memory. Loop thread only."""

    def __init__(self, interface: str, megabytes: int, *, promiscuous: bool) -> None:
        """Raises `CaptureError` when the interface can't be captured."""
        if not sys.platform.startswith("linux"):
            raise CaptureError(interface, "live capture needs Linux")
        self.interface = interface
        self._received = self._dropped = 0
        self._at = 0
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except OSError as exc:
            raise CaptureError(interface, _reason(exc)) from exc
        try:
            self._index = socket.if_nametoindex(interface)
            self._memory = self._map(megabytes * (1 << 20) // _BLOCK_BYTES)
            self.link_type = self._bind(promiscuous)
        except BaseException as exc:
            self.close()
            if isinstance(exc, OSError):
                raise CaptureError(interface, _reason(exc)) from exc
            raise
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    _memory: mmap.mmap | None = None

    def _map(self, blocks: int) -> mmap.mmap:
        self.blocks = blocks
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        frames = blocks * (_BLOCK_BYTES // _FRAME_BYTES)
        request = struct.pack("=7I", _BLOCK_BYTES, blocks, _FRAME_BYTES, frames, _RETIRE_MS, 0, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        return mmap.mmap(self._socket.fileno(), blocks * _BLOCK_BYTES, mmap.MAP_SHARED)

    def _bind(self, promiscuous: bool) -> int:
        """Packets come from here on; the link type."""
        self._socket.bind((self.interface, 0))  # no protocol, so nothing comes yet
        kind = self._socket.getsockname()[3]
        if kind == _LOOPBACK:
            # On the loopback interface each packet is seen going out and coming in.
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        if promiscuous:
            membership = struct.pack("=iHH8s", self._index, _PACKET_MR_PROMISC, 0, b"")
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        self._socket.bind((self.interface, _ETH_P_ALL))
        self.check()
        if kind in (_ETHERNET, _LOOPBACK):
            return _LINK_ETHERNET
        if kind in _RAW:
            return _LINK_RAW
        raise CaptureError(self.interface, f"packets of its kind (hardware type {kind}) are not decoded")

    def fileno(self) -> int:
        """Readable while a block is ours, or something is wrong with the interface."""
        return self._socket.fileno()

    def check(self) -> None:
        """Raises `OSError` when the interface went down or away."""
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def block(self) -> tuple[int, int] | None:
        """Address and filled bytes of the next block that is ours, or None."""
        block = self._address + self._at * _BLOCK_BYTES
        if not ctypes.c_uint32.from_address(block + _STATUS).value & _USER:
            return None
        return block, min(ctypes.c_uint32.from_address(block + _BLOCK_LENGTH).value, _BLOCK_BYTES)

    def release(self) -> None:
        """Give the block back to the kernel. All was read from it: calls into Lua take locks, which order that."""
        block = self._address + self._at * _BLOCK_BYTES
        ctypes.c_uint32.from_address(block + _STATUS).value = _KERNEL
        self._at = (self._at + 1) % self.blocks

    def counts(self) -> tuple[int, int]:
        """Packets that the kernel had for us, and of these the dropped ones."""
        if self._memory is not None:
            answer = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)  # and starts again from 0
            received, dropped, _ = struct.unpack("=III", answer)
            self._received, self._dropped = self._received + received, self._dropped + dropped
        return self._received, self._dropped

    def close(self) -> None:
        """Unmap the ring and close the socket. Idempotent."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()  # it has a duplicate of the socket's descriptor
        self._socket.close()


class LiveReel(Reel):
    """The packets of one interface."""

    wall_time = True

    def __init__(
        self, interface: str, *, promiscuous: bool, seconds: float | None, packets: int | None, megabytes: int
    ) -> None:
        self._interface = interface
        self._promiscuous = promiscuous
        self._megabytes = megabytes
        self._seconds = seconds
        self._left = packets
        self._ring: Ring | None = None
        self._in_block = self._passing = self._stopped = False
        self._spent = False  # a block is decoded, but frames of the last batch lie in it
        self._woken = asyncio.Event()
        self._counts = (0, 0)
        self._until: float | None = None
        self._last_blocks: int | None = None  # that are still read after the end, as they were full by then

    async def next(self, decoder: Decoder, packets: int) -> Batch | None:
        """As in the base class. A batch without packets comes when there were none for a while."""
        loop = asyncio.get_running_loop()
        if self._ring is None:
            self._ring = Ring(self._interface, self._megabytes, promiscuous=self._promiscuous)
            self._until = None if self._seconds is None else loop.time() + self._seconds
        ring = self._ring
        if self._spent:
            self._spent = False
            ring.release()
        if self._passing:
            return self._pass_time(decoder)
        if self._left == 0:
            return None
        if not self._in_block:
            block = await self._next_block(ring, loop)
            if block is None:
                return None if self.failure or self._is_over(loop) else self._pass_time(decoder)
            decoder.begin_block(self._interface, *block, ring.link_type)
            self._in_block = True
        batch = decoder.step(packets if self._left is None else min(packets, self._left))
        if self._left is not None:
            self._left -= batch.packets
        if batch.done:
            self._in_block, self._spent = False, True
        return batch

    async def _next_block(self, ring: Ring, loop: asyncio.AbstractEventLoop) -> tuple[int, int] | None:
        """A block that is ours, waiting for it a while; None when there is none. At the end those that are full."""
        block = ring.block()
        if block is None and not self._is_over(loop):
            seconds = _QUIET_SECONDS if self._until is None else min(_QUIET_SECONDS, self._until - loop.time())
            block = await self._wait(ring, loop, seconds)
        if self._is_over(loop) and self.failure is None:
            if self._last_blocks is None:
                self._last_blocks = ring.blocks
                # What came last is in a block that the kernel has not given away yet.
                block = block or await self._wait(ring, loop, 2 * _RETIRE_MS / 1000)
            self._last_blocks -= 1
            return block if self._last_blocks >= 0 else None
        return block

    def _is_over(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._stopped or (self._until is not None and loop.time() >= self._until)

    def _pass_time(self, decoder: Decoder) -> Batch:
        batch = decoder.pass_time(time.time() - _LAG_SECONDS)
        self._passing = not batch.done
        return batch

    async def _wait(self, ring: Ring, loop: asyncio.AbstractEventLoop, seconds: float) -> tuple[int, int] | None:
        """Until a block is ours, `stop` is called, or the time is over; the block. Notes what is wrong as failure."""
        self._woken.clear()
        loop.add_reader(ring.fileno(), self._woken.set)
        try:
            ring.check()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        except OSError as exc:
            down = exc.errno == errno.ENETDOWN
            self.failure = CaptureError(self._interface, "the network interface went down" if down else _reason(exc))
            return None
        finally:
            loop.remove_reader(ring.fileno())
        return ring.block()

    def stop(self) -> None:
        """As in the base class."""
        self._stopped = True
        self._woken.set()

    def stats(self) -> SourceStats:
        """As in the base class."""
        if self._ring is not None:
            self._counts = self._ring.counts()
        received, dropped = self._counts
        return SourceStats(received=received, dropped=dropped)

    def close(self) -> None:
        """As in the base class."""
        self.stop()
        if self._ring is not None:
            self.stats()
            self._ring.close()
            self._ring = None


def _reason(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "no permission to capture, which takes CAP_NET_RAW: run as root (sudo), or give it to the interpreter "
            f"with 'setcap cap_net_raw+ep {Path(sys.executable).resolve()}'"
        )
    if error.errno in (errno.ENODEV, errno.ENXIO) or (error.errno is None and "no interface" in str(error)):
        return "no such network interface"
    if error.errno == errno.ENETDOWN:
        return "the network interface is down"
    if error.errno == errno.EAFNOSUPPORT:
        return "live capture is not in this kernel (AF_PACKET)"
    return error.strerror or str(error)
