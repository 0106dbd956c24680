"""Async work comes home: callbacks run, failures are logged, files may go. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.capture.ramfs import Ramfs
from engine.offload import Outcome, Status
from engine.plugins.plugin import Plugin
from engine.vm.state import text


class Completions:
    """The one place where what left by `T.async` comes back into the plugins."""

    def __init__(
        self,
        now: Callable[[], float],
        ramfs: Callable[[], Ramfs],
        take: Callable[[Iterable[Plugin]], None],
        script_error: Callable[[Plugin, str, str, str], None],
        failed: Callable[[Plugin, str], None],
    ) -> None:
        """`take` empties outboxes; `script_error` and `failed` log what went wrong in Lua, and in a file operation."""
        self._now = now
        self._ramfs = ramfs
        self._take = take
        self._script_error = script_error
        self._failed = failed

    def deliver(self, plugin: Plugin, outcomes: list[Outcome]) -> None:
        """Outcomes of a plugin's queue."""
        now = self._now()
        for outcome in outcomes:
            if outcome.status is Status.FAILED:
                self._tell(plugin, outcome.task.is_lua, outcome.value or b"", outcome.traceback)
            for message, traceback in outcome.failures:
                self._tell(plugin, True, message, traceback)
        if not plugin.closed:
            plugin.complete(now, [each for each in outcomes if each.status is not Status.ABANDONED])
            self._take((plugin,))
        self.let_go(outcomes)

    def fetch(self, plugin: Plugin) -> None:
        """Outcomes that came by the lane: no failures, no files."""
        plugin.complete_lane(self._now())
        self._take((plugin,))

    def let_go(self, outcomes: Iterable[Outcome]) -> None:
        """Files that these held may go."""
        for outcome in outcomes:
            if outcome.task.lease:
                self._ramfs().release(outcome.task.lease)

    def _tell(self, plugin: Plugin, is_lua: bool, message: bytes, traceback: bytes) -> None:
        if is_lua:
            self._script_error(plugin, "onexecute", text(message), text(traceback))
        else:
            self._failed(plugin, text(message))
