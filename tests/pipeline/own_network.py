"""A network of its own for a test: a thread in a fresh network namespace, whose only interface is `lo`."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

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


def _enter() -> None:
    if not sys.platform.startswith("linux"):
        raise NotPermitted("live capture needs Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise NotPermitted(f"a network namespace can't be made here: {os.strerror(ctypes.get_errno())}")
    set_up("lo", True)
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
