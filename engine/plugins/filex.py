"""How `filex_monitor` plugins vote on flows and messages, and get payload and files (spec 2.13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.plugins.plugin import Plugin
from engine.plugins.votes import Ballot


class FilexVotes:
    """The file hooks of all filex_monitor plugins as one, for the extractor."""

    def __init__(
        self, plugins: Sequence[Plugin], log: Callable[[Plugin, str], None], keep: Callable[[int], None]
    ) -> None:
        """`log(plugin, text)` takes warnings about votes; `keep(lease)` keeps a file until outboxes are taken."""
        self._keep = keep
        self._ballot = ballot = Ballot(plugins, log)
        self._filters_flows, self._filters = ballot.any_has("filter_flow"), ballot.any_has("filter")
        self.wants_files = ballot.any_has("onfile_http")
        self.wants_payload = ballot.any_has("onpayload_http")
        self.wants_raw = ballot.any_has("onpayload_raw")

    def filter_flow(self, time: float, flow: bytes) -> bool:
        """Whether any plugin wants the flow."""
        return self._ballot.vote("filter_flow", time, flow) if self._filters_flows else self._ballot.stands

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:  # noqa: ARG002
        """Whether any plugin wants the message that this header block starts."""
        return self._ballot.vote("filter", time, flow, head) if self._filters else self._ballot.stands

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        """Raw bytes of the connection."""
        self._ballot.tell("onpayload_raw", time, 0, flow, direction, seekpos, data)

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
        self._ballot.tell("onpayload_http", time, 0, flow, path.encode(), request, response, direction, seekpos, data)

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
        self._ballot.tell("onfile_http", time, lease, flow, path.encode(), request, response, length, is_partial)

    def flow_end(self, time: float, flow: bytes) -> None:
        """The connection has ended."""
        self._ballot.tell("onterminateflow", time, 0, flow)
