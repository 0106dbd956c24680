"""A mutex for memory that Lua on other threads touches, too (pthread_mutex_t)."""

from __future__ import annotations

import ctypes
import time

libc = ctypes.PyDLL(None)
"""The C library, called without letting go of the GIL, for what does not wait."""

Mutex = ctypes.c_uint64 * 8
"""Room for a mutex in a structure; for a condition, too."""


class Lock:
    """Locks a mutex that lies at an address. From any thread; who holds it may need the GIL, in a finalizer."""

    __slots__ = ("_address",)

    def __init__(self, address: int) -> None:
        """Prepares the mutex. The memory must stay."""
        self._address = ctypes.c_void_p(address)
        libc.pthread_mutex_init(self._address, None)

    def __enter__(self) -> None:
        while libc.pthread_mutex_trylock(self._address):
            time.sleep(0)  # lets go of the GIL

    def __exit__(self, *_: object) -> None:
        libc.pthread_mutex_unlock(self._address)
