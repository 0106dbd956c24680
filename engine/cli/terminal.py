"""What a person sees while a capture is read: progress and log lines on stderr, and what scripts print on stdout."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from engine.cli.summary import counted
from engine.values.stats import EngineStats

_LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal
_HELD_LINES = 200  # log lines that wait for the next turn of the bar
_HELD_BYTES = 1 << 16  # what scripts may print until then
_FULLY_BUFFERED, _LINE_BUFFERED = 0, 1  # _IOFBF, _IOLBF
_RECORD_HEADER_BYTES = 16  # before each packet of a pcap file

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_STYLES = {logging.CRITICAL: "bold red", logging.ERROR: "red", logging.WARNING: "yellow"}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TRACEBACK = "\nstack traceback:"


class ScriptOutput:
    """The C library's stdout, where `print` of a script writes, with a buffer of its own beside Python's."""

    def __init__(self) -> None:
        self._held = False
        self._libc = ctypes.CDLL(None)
        self._stdout: ctypes.c_void_p | None = None
        try:
            self._pending = self._libc["__fpending"]  # by index, as a class would mangle the name
            self._pending.restype = ctypes.c_size_t
            self._libc.malloc.restype = ctypes.c_void_p
            self._stdout = ctypes.c_void_p.in_dll(self._libc, "stdout")
        except (AttributeError, ValueError):
            return  # another C library: flushing is all that can be done

    def hold(self) -> None:
        """From now on keep what is printed until `flush`, or until there is much of it."""
        if self._stdout is None or self._held:
            return
        # The buffer belongs to the stream until the process ends, so it is never freed.
        buffer = ctypes.c_void_p(self._libc.malloc(ctypes.c_size_t(_HELD_BYTES)))
        self._held = not self._libc.setvbuf(self._stdout, buffer, _FULLY_BUFFERED, ctypes.c_size_t(_HELD_BYTES))

    def release(self) -> None:
        """Flush, and back to line by line if it was held."""
        self.flush()
        if self._held:
            self._held = False
            self._libc.setvbuf(self._stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))

    def waiting(self) -> bool:
        """Whether something printed waits in the buffer."""
        return self._stdout is not None and self._pending(self._stdout) > 0

    def flush(self) -> None:
        """Write out what was printed. Any thread."""
        self._libc.fflush(self._stdout)  # NULL stands for every stream


class Display:
    """Progress and log lines on stderr: a bar on a terminal, else a line every few seconds.

    Use it as a context manager; while it is open, Python logging of `offpath` goes here. Loop thread only.
    """

    def __init__(
        self,
        name: str,
        size: int | None,
        *,
        verbosity: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` and `size` are the capture's; None is a size that says nothing of how much there is to read."""
        self._size = size
        self._verbosity = verbosity
        self._clock = clock
        self._next_line = clock() + _LINE_SECONDS
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._output = ScriptOutput()
        self._lines: list[tuple[str, str]] = []
        self._handler = _Handler(self.line, traceback=verbosity > 0)
        self._bar: Progress | None = None
        if sys.stderr.isatty() and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = _make_bar(self._console)
            self._row = self._bar.add_task(name, total=size, counts="")

    def __enter__(self) -> Self:
        logger = logging.getLogger("offpath")
        self._logger_state = (logger.level, logger.propagate)
        logger.setLevel(_LEVELS[min(self._verbosity, len(_LEVELS) - 1)])
        logger.propagate = False
        logger.addHandler(self._handler)
        if self._bar is not None and sys.stdout.isatty():
            self._output.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logger = logging.getLogger("offpath")
        logger.removeHandler(self._handler)
        logger.level, logger.propagate = self._logger_state
        if self._bar is not None:
            self._bar.stop()
        self._output.release()
        self._print_lines()
        self._bar = None

    def line(self, text: str, style: str = "") -> None:
        """Show a line, between two turns of the bar if there is one."""
        self._lines.append((_CONTROLS.sub(_escape, text), style))
        if self._bar is None or len(self._lines) >= _HELD_LINES:
            self._interject()

    def show(self, stats: EngineStats, *, over: bool = False) -> None:
        """Show how far it went; when it is `over`, there are no more lines of progress."""
        if self._bar is None:
            if not over:
                self._show_line(stats)
            return
        done = None if self._size is None else min(read_bytes(stats), self._size)
        self._bar.update(self._row, completed=done, counts=describe(stats))
        if self._lines or self._output.waiting():
            self._interject()
        if self._bar.live.is_started:
            self._bar.refresh()
        else:
            self._bar.start()  # draws

    def _show_line(self, stats: EngineStats) -> None:
        if self._clock() < self._next_line:
            return
        self._next_line = self._clock() + _LINE_SECONDS
        part = "" if not self._size else f"{min(read_bytes(stats) / self._size, 1.0):.0%}, "
        self.line(part + describe(stats))

    def give_up(self) -> None:
        """Hand the terminal back in the middle of anything, for a process that ends at once. Any thread."""
        if self._bar is not None:
            os.write(2, b"\r\x1b[K\x1b[?25h")  # clear the line, show the cursor
        self._output.flush()

    def _interject(self) -> None:
        """Write lines and what scripts printed. The bar goes away for that, until the next `show`."""
        if self._bar is not None:
            if self._bar.live.is_started:
                self._bar.stop()
            self._output.flush()
        self._print_lines()

    def _print_lines(self) -> None:
        lines, self._lines = self._lines, []
        for text, style in lines:
            if self._bar is None and not self._console.is_terminal:
                sys.stderr.write(text + "\n")
            else:
                self._console.print(Text(text, style), soft_wrap=True)


class _Handler(logging.Handler):
    """Gives log records to a display."""

    def __init__(self, line: Callable[[str, str], None], *, traceback: bool) -> None:
        super().__init__()
        self._line = line
        self._traceback = traceback

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; a Lua traceback only if asked for."""
        message = record.getMessage()
        if not self._traceback:
            message = message.partition(_TRACEBACK)[0]
        self._line(f"{record.levelname.lower()}: {message}", _STYLES.get(record.levelno, ""))


def read_bytes(stats: EngineStats) -> int:
    """About how many bytes of a capture file were read."""
    return stats.decode.captured_bytes + _RECORD_HEADER_BYTES * stats.decode.packets


def describe(stats: EngineStats) -> str:
    """The counts that progress shows: ``1,234 packets, 5 files, 2 tasks pending``."""
    counts = f"{counted(stats.decode.packets, 'packet')}, {counted(stats.http.files, 'file')}"
    return f"{counts}, {counted(stats.tasks.pending, 'task')} pending" if stats.tasks.pending else counts


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        # No thread draws: a script in the debugger has the terminal for itself.
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _escape(found: re.Match[str]) -> str:
    """Control characters come from captures, through scripts: a terminal must not obey them."""
    return f"\\x{ord(found.group()):02x}"
