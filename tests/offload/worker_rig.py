"""A worker of either kind without a queue: an exchange that gives chunks of tasks, and what came back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from engine.offload.process import WorkerDiedError
from engine.offload.task import PACK_CODE, Status
from engine.offload.worker import WorkerSetup
from engine.values.errors import EngineError
from engine.vm import LuaState
from tests.offload.rig import BYTECODES, WORKERS
from tests.support import DEADLINE, SETTINGS, WorkerKind

DONE, RESULT, FAILED = 0, 1, 2

RUN_FAILED = (EngineError, WorkerDiedError)
"""What the drain run of a thread, or of a process, raises when its state can't be prepared."""


def code_of(source: str) -> bytes:
    """The bytecode of a task."""
    state = LuaState()
    dumped: bytes = state.execute(b"return string.dump(assert(loadstring(..., '@task.lua')))", source.encode())
    state.close()
    return dumped


def pack_of(number: int, *tasks: tuple[int, bytes]) -> tuple[Any, ...]:
    """A pack of tasks, code and data of each, as it crosses; the first has the pack's number as its id."""
    state = LuaState()
    put = state.execute(
        b"local b = require('string.buffer').new() return function(v) return b:encode(v):tostring() end"
    )
    blob = put(number)
    for code, data in tasks:
        for value in (code, b"", data, 3):
            blob = put(value)
    del put
    state.close()
    return number, PACK_CODE, 0, blob, len(tasks)


class Exchange:
    """Gives chunks of tasks, one a call, and writes down what comes back, with the call that brought it."""

    def __init__(self, *chunks: list[tuple[Any, ...]]) -> None:
        """Of a task: id, code, data, and its timeout if it has one; of a pack, all five values that cross."""
        self.chunks = list(chunks)
        self.rows: list[tuple[Any, ...]] = []
        self.results: dict[int, tuple[int, Any, Any]] = {}
        self.calls: list[tuple[bool, list[int]]] = []
        self.threads: set[str] = set()

    def __call__(self, more: bool, *flat: Any) -> tuple[Any, ...] | None:
        self.threads.add(threading.current_thread().name)
        rows = (flat[at : at + 4] for at in range(0, len(flat), 4))
        given = [row for row in rows if row[1] != Status.QUICK_CODE]
        self.rows += given
        self.calls.append((more, [each[0] for each in given]))
        self.results.update({each[0]: each[1:] for each in given if each[1] in (DONE, RESULT, FAILED)})
        if not more or not self.chunks:
            return None
        return tuple(value for row in self.chunks.pop(0) for value in _crossing(*row))


def _crossing(number: int, code: int, data: Any, timeout: Any = 0, *more: Any) -> tuple[Any, ...]:
    return (number, code, data, timeout, *more) if more else (number, code, b"", data, timeout)


class Made:
    """A worker over an exchange, its log lines and the codes it asked for."""

    def __init__(
        self,
        exchange: Exchange,
        codes: Mapping[int, bytes | str] = BYTECODES,
        kind: WorkerKind = "thread",
        **fields: Any,
    ) -> None:
        """`codes` are bytecode or source; `fields` those of `WorkerSetup`."""
        self.exchange = exchange
        self.logged: list[tuple[int, bytes]] = []
        self.loaded: list[int] = []
        self.codes = {number: each if isinstance(each, bytes) else code_of(each) for number, each in codes.items()}
        given = {"name": "worker", "settings": SETTINGS, "directory": "/nonexistent", "roots": (), **fields}
        self.worker = WORKERS[kind](WorkerSetup(**given, log=self._log, load_code=self._load_code), exchange)

    def _log(self, level: int, text: bytes) -> None:
        self.exchange.threads.add(threading.current_thread().name)
        self.logged.append((level, text))

    def _load_code(self, code: int) -> bytes:
        self.exchange.threads.add(threading.current_thread().name)
        self.loaded.append(code)
        return self.codes[code]

    def on_thread(self, fn: Callable[..., Any], *args: Any) -> Any:
        """What a function gives on the worker's thread."""
        return self.worker.executor.submit(fn, *args).result(DEADLINE)

    def reset(self) -> None:
        self.on_thread(self.worker.reset)

    def start(self, *chunks: list[tuple[Any, ...]]) -> Any:
        """Begin a drain run, over these chunks if the exchange has no others; its future."""
        self.exchange.chunks += chunks
        return self.worker.executor.submit(self.worker.drain)

    def drain(self, *chunks: list[tuple[Any, ...]]) -> int:
        """One drain run: how many tasks were run."""
        return self.start(*chunks).result(DEADLINE)  # type: ignore[no-any-return]

    def run(self, code: int, data: bytes = b"") -> tuple[int, Any]:
        """Status and value of one task."""
        self.drain([(1, code, data)])
        return self.exchange.results.pop(1)[:2]
