"""A worker process from its start to its burial, as its parent sees it.

It is started by exec of a fresh interpreter. Forking is unsafe once there are threads, and the start methods of
`multiprocessing` run the `__main__` of the host again, which has a guard only if its author thought of it.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from engine.offload.process_wire import Channel, GoneError, Kind
from engine.offload.worker import WorkerSetup

_MAIN = Path(__file__).with_name("process_main.py")


class Child:
    """A process and this end of its socket. Made, spoken to and buried on the worker's thread; `kill` is for any."""

    def __init__(self, setup: WorkerSetup, shared_descriptor: int) -> None:
        """Start it. Raises `OSError` when that fails, `ValueError` when `settings` hold what is no plain data."""
        plain = {field.name: getattr(setup, field.name) for field in fields(setup)}
        del plain["log"], plain["load_code"]
        # A process can be killed whatever it does: its states keep the compiler.
        plain |= {"strict_timeout": False, "settings": dict(setup.settings), "roots": tuple(setup.roots)}
        packed = marshal.dumps(plain)
        self.fresh = True
        """Whether it has not asked for tasks yet."""
        self._lock = threading.Lock()
        self._buried = False
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", _MAIN, str(theirs.fileno()), str(shared_descriptor), str(os.getpid()), *_path()],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), shared_descriptor),
                process_group=0,  # Ctrl-C is the parent's; and programs that a task started end with it
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.channel = Channel(ours)
        with suppress(GoneError):  # it died at once: the next to read will say so
            self.channel.send(Kind.SETUP, (packed,))

    def kill(self) -> None:
        """End the process and its group at once. From any thread."""
        with self._lock:  # until it is buried its id is nobody else's
            if not self._buried:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self, seconds: float) -> str:
        """Wait so long for its end, then enforce it; how it ended, in words. Leaves neither zombie nor descriptor."""
        self.channel.close()
        if not self._ends_within(seconds):
            self.kill()
            self._ends_within(None)
        with self._lock:
            self._buried = True
            status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    def _ends_within(self, seconds: float | None) -> bool:
        until = time.monotonic() + (seconds or 0)
        pause = 0.0005
        look = os.WEXITED | os.WNOWAIT | (0 if seconds is None else os.WNOHANG)
        try:
            while os.waitid(os.P_PID, self._process.pid, look) is None:
                if time.monotonic() > until:
                    return False
                time.sleep(pause)
                pause = min(pause * 2, 0.01)
        except ChildProcessError:  # the host reaps children of its own accord
            return True
        return True


def _path() -> list[str]:
    """Ours, without the working directory, which a script may change."""
    return [each for each in sys.path if each]
