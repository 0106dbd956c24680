"""How file monitors vote: a flow or message is skipped only when every plugin said false."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.plugins.filex import FilexVotes
from engine.plugins.loader import load_script
from engine.plugins.plugin import Plugin
from engine.plugins.script import ScriptFile
from engine.stream.groups import Groups

FLOW = b"06A:0A.00.00.02:p-4E20_C6.33.64.0A:p-0050"
HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
SETTINGS = {"homenets": [], "config": {}, "queue_limit": 10}

YES = "filter_flow = function() return true end, filter = function() return true end"
NO = "filter_flow = function() return false end, filter = function() return false end"
NOTHING = "filter_flow = function() end, filter = function() end"
TEXT = 'filter_flow = function() return "false" end, filter = function() return 0 end'
RAISES = 'filter_flow = function() error("no") end, filter = function() error("no") end'
WITHOUT = "onfile_http = function() end"


class Ballot:
    """Plugins with one file monitor each, and what was warned about them."""

    def __init__(self, *hooks: str) -> None:
        self.plugins: list[Plugin] = []
        self.warned: list[tuple[str, str]] = []
        self.kept: list[int] = []
        for number, body in enumerate(hooks):
            text = f'TrisulPlugin = {{ id = {{ name = "v" }}, filex_monitor = {{ {body} }} }}'.encode()
            script = ScriptFile(f"/nowhere/{number}.lua", f"{number}.lua", text)
            self.plugins += load_script(
                script, lambda side: {"side": side, **SETTINGS}, lambda *_: None, Groups()
            ).plugins
        self.votes = FilexVotes(
            self.plugins, lambda plugin, line: self.warned.append((plugin.script, line)), self.kept.append
        )

    def flow(self) -> bool:
        return self.votes.filter_flow(1.5, FLOW)

    def message(self) -> bool:
        return self.votes.filter(1.5, FLOW, HEAD, is_request=True)

    def calls(self) -> list[dict[str, int]]:
        """How often each hook of each plugin was called."""
        return [{hook.name: hook.calls for hook in plugin.stats().hooks} for plugin in self.plugins]


@pytest.fixture
def ballot() -> Iterator[type[Ballot]]:
    made: list[Ballot] = []

    class Tracked(Ballot):
        def __init__(self, *hooks: str) -> None:
            super().__init__(*hooks)
            made.append(self)

    yield Tracked
    for each in made:
        for plugin in each.plugins:
            plugin.close()


@pytest.mark.parametrize(
    ("hooks", "kept"),
    [
        ([YES], True),
        ([NO], False),
        ([NO, NO], False),
        ([NO, YES], True),
        ([YES, NO], True),
        ([WITHOUT], True),
        ([NO, WITHOUT], True),
        ([NOTHING], True),
        ([TEXT], True),
        ([RAISES], True),
        ([NO, RAISES], True),
        ([], True),
    ],
    ids=["yes", "no", "no-no", "no-yes", "yes-no", "none", "no-none", "nil", "text", "error", "no-error", "nobody"],
)
def test_only_a_unanimous_no_skips(ballot: type[Ballot], hooks: list[str], kept: bool) -> None:
    voters = ballot(*hooks)
    assert voters.flow() is kept
    assert voters.message() is kept


def test_every_plugin_is_asked_whatever_the_others_said(ballot: type[Ballot]) -> None:
    voters = ballot(YES, NO, NOTHING)
    voters.flow()
    voters.message()
    assert voters.calls() == [{"filter_flow": 1, "filter": 1}] * 3


def test_a_vote_that_is_no_boolean_is_complained_about_once(ballot: type[Ballot]) -> None:
    voters = ballot(TEXT, YES, NO, RAISES)
    for _ in range(3):
        voters.flow()
        voters.message()
    assert voters.warned == [("0.lua", "filex_monitor.filter_flow returned no boolean, which counts as true")]


def test_a_closed_plugin_has_no_vote(ballot: type[Ballot]) -> None:
    voters = ballot(YES, NO)
    voters.plugins[0].close()
    assert voters.flow() is False
    assert voters.message() is False


def test_what_is_wanted_is_what_any_plugin_has_a_hook_for(ballot: type[Ballot]) -> None:
    voters = ballot(YES, WITHOUT, "onpayload_raw = function() end").votes
    assert (voters.wants_files, voters.wants_payload, voters.wants_raw) == (True, False, True)
    streaming = ballot("onpayload_http = function() end").votes
    assert (streaming.wants_files, streaming.wants_payload, streaming.wants_raw) == (False, True, False)


def test_a_file_is_kept_and_told_to_those_that_have_the_hook(ballot: type[Ballot], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    tell = (
        "onfile_http = function(engine, ts, flow, path, req, resp, length, partial) "
        f'local out = io.open("{seen}", "a"); out:write(table.concat({{ ts, flow:id(), path, req:get_method(), '
        'tostring(resp:get_status()), length, tostring(partial) }, " "), "\\n"); out:close() end'
    )
    voters = ballot(tell, YES, tell)
    response = b"HTTP/1.1 404 No\r\n\r\n"
    voters.votes.file(7.9, FLOW, "/ram/x", HEAD, response, 12, True, 3)
    line = f"7 {FLOW.decode()} /ram/x GET 404 12 true\n"
    assert voters.kept == [3]
    assert seen.read_text() == line * 2
