"""Protocols and frames as scripts will find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.vm.state import LuaState

LUA_API = Path(__file__).parents[2] / "lua_api"


@pytest.fixture
def state():
    state = LuaState()
    state.add_modules("offpath", LUA_API)
    yield state
    state.close()


def test_each_protocol_has_a_guid_of_its_own(state: LuaState) -> None:
    text = state.execute(b"""
        local p, lines = require('offpath.protocols'), {}
        for number, guid in ipairs(p.guid) do lines[number] = guid .. ' ' .. p.name[number] end
        return table.concat(lines, '\\n')""")
    rows = [line.split(" ", 1) for line in text.decode().split("\n")]
    guids, names = [row[0] for row in rows], [row[1] for row in rows]
    assert len(set(guids)) == len(set(names)) == len(rows) < 64
    assert all(guid == guid.upper() and len(guid) == 38 for guid in guids)


@pytest.mark.parametrize(
    ("name", "guid"),
    [
        ("ETHERNET", "{974FB098-DE46-45DB-94DA-8D64A3BBCDE5}"),
        ("IPV4", "{0A2C724B-5B9F-4BA6-9C97-B05080558574}"),
        ("IPV6", "{85C0CCED-DA8D-4029-924A-A6AB87F62EF8}"),
        ("ICMP", "{7DDD65F2-A316-43B5-A103-368E700E045E}"),
        ("UDP", "{14d7ab53-cc51-47e9-8814-9c06aae60189}"),
        ("TCP", "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}"),
        ("IGMP", "{D3E8D72E-48ED-43F9-1E8C-DD5FED84E830}"),
    ],
)
def test_well_known_guids(state: LuaState, name: str, guid: str) -> None:
    ask = b"local p = require('offpath.protocols') local name, guid = ... return p[name], p.find(guid)"
    number, found = state.execute(ask, name.encode(), guid.encode())
    assert number == found
    assert number > 0


def test_what_is_no_protocol_is_not_found(state: LuaState) -> None:
    ask = b"return require('offpath.protocols').find(...)"
    assert state.execute(ask, b"{00000000-0000-0000-0000-000000000000}") is None
    assert state.execute(ask, b"TCP") is None


def test_a_frame_has_room_for_the_layers_it_says(state: LuaState) -> None:
    text = b"local f = require('offpath.frame') return f.BYTES - f.HEAD_BYTES, f.LAYERS * f.LAYER_BYTES"
    room, layers = state.execute(text)
    assert room == layers
