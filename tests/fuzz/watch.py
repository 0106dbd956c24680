"""Starts a process that fuzzes a target, and finds out what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.child import FOUND
from tests.fuzz.state import Progress, State

ROOT = Path(__file__).parents[2]
LIMIT = 2.0
"""Processor seconds that one input may take."""

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL = 0.05


class Finding(NamedTuple):
    """What is wrong with one input."""

    target: str
    what: str
    data: bytes
    number: int
    """Which execution it was."""


class Outcome(NamedTuple):
    """What became of a process."""

    progress: Progress
    seconds: float
    finding: Finding | None


class Watched:
    """A process that fuzzes. It is killed when an input takes too long."""

    def __init__(
        self, target: str, folder: Path, *options: str, limit: float = LIMIT, data: bytes | None = None
    ) -> None:
        self._target = target
        self._limit = limit
        self._results = folder / "results"
        self._log = folder / "log"
        self.state = State(folder / "state")
        command = [sys.executable, "-m", "tests.fuzz.child", target, "--state", str(folder / "state")]
        command += ["--results", str(self._results), "--limit", str(limit), *options]
        if data is not None:
            (folder / "input").write_text(data.hex())
            command.append("--input")
        with self._log.open("wb") as log, (folder / "input" if data is not None else Path(os.devnull)).open() as given:
            # The kernel's ids are of no use when many processes of one test run share a core: no shell between.
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=given, stdout=log, stderr=log)

    def wait(self, tell: Callable[[Progress], None] = lambda progress: None) -> Outcome:
        """Until it ends; `tell` hears of its progress now and then."""
        began = time.monotonic()
        at, since, hung = -1, 0.0, False
        while self._process.poll() is None:
            now = self.state.read()
            tell(now)
            used = self._used()
            if now.begun != at or now.ended == now.begun:
                at, since = now.begun, used
            elif used - since > self._limit + 1:  # it is told by the process itself, when its end is near
                hung = True
                self._process.kill()
            time.sleep(_POLL)
        outcome = Outcome(self.state.read(), time.monotonic() - began, None)
        what = self._what_happened(hung)
        if what:
            finding = Finding(self._target, what, self.state.read_input(), outcome.progress.begun)
            outcome = outcome._replace(finding=finding)
        self.state.close()
        return outcome

    def stop(self) -> None:
        """Kill it, if it runs still."""
        self._process.kill()
        self._process.wait()

    def _used(self) -> float:
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _what_happened(self, hung: bool) -> str:
        code = self._process.returncode
        progress = self.state.read()
        if hung:
            return f"hangs: took more than {self._limit:g} s of processor time"
        if code == FOUND:
            error: str = json.loads(self._results.read_text())["error"]
            return error
        if code < 0 and progress.begun > progress.ended:
            return f"crash: {signal.Signals(-code).name}"
        if code:
            log = self._log.read_text(errors="replace")[-4_000:]
            raise RuntimeError(f"{self._target} could not be fuzzed, exit code {code}:\n{log}")
        return ""


def fuzz(
    target: str,
    *options: str,
    limit: float = LIMIT,
    data: bytes | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Fuzz a target, or execute one input, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="offpath-fuzz-") as folder:
        watched = Watched(target, Path(folder), *options, limit=limit, data=data)
        try:
            return watched.wait(tell)
        finally:
            watched.stop()
