"""A network of its own for a test: a thread in a fresh network namespace, whose only interface is `lo`.

Another one can be joined to it, by a pair of Ethernet interfaces of which each has one end.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

import pytest

Value = TypeVar("Value")

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 1


class NotPermitted(Exception):  # noqa: N818
    """What the machine does not let a test do."""


def set_up(interface: str, up: bool) -> None:
    """Take an interface up or down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", interface.encode(), 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        flags = flags | _UP if up else flags & ~_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags))


def _unshare() -> None:
    if not sys.platform.startswith("linux"):
        raise NotPermitted("live capture needs Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise NotPermitted(f"a network namespace can't be made here: {os.strerror(ctypes.get_errno())}")
    set_up("lo", True)


def _enter() -> None:
    _unshare()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as exc:
        raise NotPermitted(f"packets can't be captured here: {exc.strerror}") from exc


def in_own_network(
    main: Callable[[], Coroutine[Any, Any, None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop,
) -> None:
    """Run a coroutine in such a thread; its own threads are in that network, too. Skips where that is not permitted."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _enter()
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, name="own-network")
    thread.start()
    thread.join()
    for error in errors:
        if isinstance(error, NotPermitted):
            pytest.skip(str(error))
        pytest.fail("".join(traceback.format_exception(error)), pytrace=False)


NEAR, NEAR_ADDRESS = "near0", "10.77.0.1"
"""This end of the pair, and"""
FAR, FAR_ADDRESS = "far0", "10.77.0.2"
"""the other one, in the network that is joined."""


def _ip(*args: str) -> None:
    """Run `ip` in the network of this thread."""
    try:
        done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise NotPermitted("the command `ip` is not installed") from exc
    if done.returncode:
        raise NotPermitted(f"`ip {' '.join(args)}` fails here: {done.stderr.strip()}")


def _give_address(interface: str, address: str) -> None:
    _ip("address", "add", f"{address}/24", "dev", interface)
    set_up(interface, True)


class _Neighbour(Generic[Value]):
    """A thread in the other network, which holds what runs there."""

    def __init__(self, hold: Callable[[], AbstractContextManager[Value]]) -> None:
        self._hold = hold
        self._apart, self._joined, self._over = threading.Event(), threading.Event(), threading.Event()
        self.held: Future[Value] = Future()
        self.thread = threading.Thread(target=self._run, name="neighbour")

    def _run(self) -> None:
        try:
            _unshare()
            self._apart.set()
            self._joined.wait()
            if self._over.is_set():
                return
            _give_address(FAR, FAR_ADDRESS)
            with self._hold() as value:
                self.held.set_result(value)
                self._over.wait()
        except BaseException as exc:
            self._apart.set()
            self.held.set_exception(exc)

    def join(self) -> Value:
        """Lay the pair between its network and that of this thread; what it holds."""
        self.thread.start()
        self._apart.wait()
        if not self.held.done():
            _ip("link", "add", "name", NEAR, "type", "veth", "peer", "name", FAR)
            _ip("link", "set", FAR, "netns", str(self.thread.native_id))
            _give_address(NEAR, NEAR_ADDRESS)
        self._joined.set()
        return self.held.result()

    def leave(self) -> None:
        """The other network ends, and what runs in it."""
        self._over.set()
        self._joined.set()
        self.thread.join()


@contextmanager
def neighbour(hold: Callable[[], AbstractContextManager[Value]]) -> Iterator[Value]:
    """Join another network to that of this thread, and hold something in it meanwhile. Raises `NotPermitted`."""
    other = _Neighbour(hold)
    try:
        yield other.join()
    finally:
        other.leave()
