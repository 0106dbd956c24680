"""Ctrl-C and SIGTERM for a command that reads a capture: stop, then abandon, then leave whatever still runs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 1.0  # seconds that the loop has to notice a second signal


class Interrupts:
    """The first signal calls `stop` on the loop, the second `abandon`.

    A Lua hook that does not return holds the loop, and with it every Python signal handler. So a thread reads the
    signals first and hands them on to the loop; when the loop does not take the second one in time, or a third one
    comes, the thread calls `leave(exit code)`, which must end the process.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        abandon: Callable[[], None],
        leave: Callable[[int], None],
        *,
        grace: float = _GRACE,
    ) -> None:
        self._stop = stop
        self._abandon = abandon
        self._leave = leave
        self._grace = grace
        self._seen = 0  # watcher thread writes, loop thread reads
        self._handled = 0  # loop thread
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self.exit_code = 0
        """128 and the number of the first signal, or 0 when none came."""

    def __enter__(self) -> Self:
        """Loop thread. Does nothing outside the main thread, where signals can't be handled."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._loop_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="offpath-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        signal.set_wakeup_fd(self._loop_fd, warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _on_signal(self, number: int) -> None:
        """Loop thread. A loop may call this once for several signals."""
        self.exit_code = self.exit_code or 128 + number
        before, self._handled = self._handled, max(self._handled + 1, self._seen)
        if before == 0:
            self._stop()
        if self._handled >= 2 and not self._abandoned.is_set():
            self._abandoned.set()
            self._abandon()

    def _watch(self) -> None:
        """Watcher thread. Ends when the pipe is closed."""
        while numbers := os.read(self._read, 64):
            self._seen += sum(number in _SIGNALS for number in numbers)
            with suppress(OSError):
                os.write(self._loop_fd, numbers)
            if self._seen >= 3 or (self._seen == 2 and not self._abandoned.wait(self._grace)):
                self._leave(128 + numbers[-1])
