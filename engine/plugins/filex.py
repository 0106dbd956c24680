"""How `filex_monitor` plugins vote on flows and messages, and get payload and files (spec 2.13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.plugins.plugin import FAILED, Plugin


class FilexVotes:
    """The file hooks of all filex_monitor plugins as one, for the extractor.

    A flow or message is skipped only if every plugin said false: a plugin without the filter, one that raised and one
    that returned no boolean count as yes (spec 2.1, 9.2 H7 and H27).
    """

    def __init__(
        self, plugins: Sequence[Plugin], log: Callable[[Plugin, str], None], keep: Callable[[int], None]
    ) -> None:
        """`log(plugin, text)` takes warnings about votes; `keep(lease)` keeps a file until outboxes are taken."""
        self._keep = keep
        self._plugins = plugins
        self._log = log
        self._complained: set[Plugin] = set()
        self.wants_files = self._any("onfile_http")
        self.wants_payload = self._any("onpayload_http")
        self.wants_raw = self._any("onpayload_raw")

    def _any(self, hook: str) -> bool:
        return any(hook in plugin.hooks for plugin in self._plugins)

    def _vote(self, hook: str, time: float, *args: Any) -> bool:
        yes = not self._plugins
        for plugin in self._plugins:
            if plugin.closed:
                continue
            if hook not in plugin.hooks:
                yes = True
                continue
            answer = plugin.call(hook, time, 0, *args)
            if answer is not False:
                yes = True
            if answer is not FAILED and not isinstance(answer, bool):
                self._complain(plugin, hook)
        return yes

    def _complain(self, plugin: Plugin, hook: str) -> None:
        if plugin not in self._complained:
            self._complained.add(plugin)
            self._log(plugin, f"{plugin.block.name}.{hook} returned no boolean, which counts as true")

    def _tell(self, hook: str, time: float, lease: int, *args: Any) -> None:
        for plugin in self._plugins:
            if hook in plugin.hooks and not plugin.closed:
                plugin.call(hook, time, lease, *args)

    def filter_flow(self, time: float, flow: bytes) -> bool:
        """Whether any plugin wants the flow."""
        return self._vote("filter_flow", time, flow)

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:  # noqa: ARG002
        """Whether any plugin wants the message that this header block starts."""
        return self._vote("filter", time, flow, head)

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        """Raw bytes of the connection."""
        self._tell("onpayload_raw", time, 0, flow, direction, seekpos, data)

    def payload_http(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        direction: int,
        seekpos: int,
        data: bytes,
    ) -> None:
        """Decoded bytes of a body; none of them at its end."""
        self._tell("onpayload_http", time, 0, flow, path.encode(), request, response, direction, seekpos, data)

    def file(
        self,
        time: float,
        flow: bytes,
        path: str,
        request: bytes,
        response: bytes,
        length: int,
        is_partial: bool,
        lease: int,
    ) -> None:
        """A file, or a part of one, that stays while async tasks of this call are unfinished."""
        self._keep(lease)
        self._tell("onfile_http", time, lease, flow, path.encode(), request, response, length, is_partial)

    def flow_end(self, time: float, flow: bytes) -> None:
        """The connection has ended."""
        self._tell("onterminateflow", time, 0, flow)
