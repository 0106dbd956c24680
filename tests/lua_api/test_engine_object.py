"""The `engine` object of hooks: which method is on which side, the effects it leaves, how odd arguments are taken."""

from __future__ import annotations

from typing import Any

import pytest

from lua_api import Effect
from tests.support import PluginLua

# Every method of the documented object, with arguments that it accepts.
METHODS = {
    "update_counter": "'{G}', 'k', 0, 1",
    "update_counter_bytes": "'{G}', 'k', 0",
    "update_counter_raw": "'{G}', 'k', 0, 1",
    "update_key_info": "'{G}', 'k', 'label'",
    "set_key_attribute": "'{G}', 'k', 'name', 'value'",
    "add_alert": "'{G}', nil, 'sig', 1, 'message'",
    "add_alert_full": "'{G}', nil, 'sig', 'class', 1, 'message'",
    "add_alert_tca": "'{G}', 7, 'FIRED', 'message'",
    "add_alert_ids": "'{G}', 'flow', 'sig', 'class', 1, 'message'",
    "add_resource": "'{G}', 'flow', 'uri', 'contents'",
    "add_flow_counter": "'flow', '{G}', 'k', 0, 0",
    "reset_flow_counter": "'flow', '{G}'",
    "tag_flow": "'flow', 'tag'",
    "add_flow_attribute": "'flow', 'name', 'value'",
    "update_flow": "'flow', 0, 1",
    "update_flow_raw": "'flow', 0, 1",
    "new_flow_record": "'flow', 1, 2, 3, 4",
    "set_flow_duration": "'flow', 1",
    "terminate_flow": "'flow'",
    "disable_reassembly": "'flow'",
    "post_message_frontend": "'m'",
    "post_message_backend": "'m'",
    "add_edge": "'{G}', 'a', '{H}', 'b'",
    "add_flow_edges": "'flow', '{G}', 'k'",
    "timestamp": "",
    "instanceid": "",
    "id": "",
    "probeid": "",
}

FRONTEND_ONLY = [
    "update_counter_bytes",
    "add_flow_counter",
    "reset_flow_counter",
    "update_flow",
    "update_flow_raw",
    "new_flow_record",
    "set_flow_duration",
    "terminate_flow",
    "disable_reassembly",
]

FLOW = "06A:0A.00.00.01:p-0050_0A.00.00.02:p-1F90"


def effects(body: str, **settings: Any) -> list[tuple[Effect, tuple[Any, ...]]]:
    plugin = PluginLua(**settings)
    found = plugin.run(body, time=5.5)
    assert plugin.logged == []
    return found


def answers(body: str, **settings: Any) -> list[bytes]:
    """What `say(text)` was told."""
    plugin = PluginLua(**settings)
    assert [
        values for code, values in plugin.run("local say = T.loginfo " + body, time=5.5) if code is Effect.ERROR
    ] == []
    return [text for _, text in plugin.logged]


@pytest.mark.parametrize("side", ["frontend", "backend"])
def test_every_method_is_there(side: str) -> None:
    body = "".join(f"say('{name} ' .. type(engine.{name})) " for name in METHODS)
    assert answers(body, side=side) == [f"{name} function".encode() for name in METHODS]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_which_side_may_call_what(name: str) -> None:
    call = f"local ok, why = pcall(function() engine:{name}({METHODS[name]}) end) "
    call += "say(tostring(ok) .. ' ' .. tostring(why))"
    assert answers(call, side="frontend")[-1].startswith(b"true")
    backend = answers(call, side="backend")[-1].decode()
    if name in FRONTEND_ONLY:
        assert backend == f"false plugin.lua:1: ERR_NOTAVAIL: {name}() is not available for backend scripts"
    else:
        assert backend.startswith("true")


def test_an_unavailable_method_is_an_error_of_the_hook() -> None:
    plugin = PluginLua(side="backend")
    [(code, values)] = plugin.run("\nengine:terminate_flow('flow')")
    assert code is Effect.ERROR
    assert values[:2] == (
        b"onevent",
        b"plugin.lua:2: ERR_NOTAVAIL: terminate_flow() is not available for backend scripts",
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("update_key_info('{g}', 9, 'l')", [(Effect.KEY_INFO, (b"{G}", b"9", b"label", b"l"))]),
        (
            "update_key_info('{G}', 'k', 'l', 'd')",
            [
                (Effect.KEY_INFO, (b"{G}", b"k", b"label", b"l")),
                (Effect.KEY_INFO, (b"{G}", b"k", b"description", b"d")),
            ],
        ),
        ("set_key_attribute('{G}', 'k', 'n', 1.5)", [(Effect.KEY_INFO, (b"{G}", b"k", b"n", b"1.5"))]),
        (
            f"add_alert('{{G}}', '{FLOW}', 'sig', '2', 'hello')",
            [(Effect.ALERT, (5.5, b"{G}", FLOW.encode(), b"sig", b"", 2, b"hello", b"ALARM"))],
        ),
        (
            "add_alert('{G}', nil, 'sig', 2, 'hello')",
            [(Effect.ALERT, (5.5, b"{G}", b"", b"sig", b"", 2, b"hello", b"ALARM"))],
        ),
        (
            "add_alert_full('{G}', '', 'sig', 'cls', 3, 'hello', 'CLEAR')",
            [(Effect.ALERT, (5.5, b"{G}", b"", b"sig", b"cls", 3, b"hello", b"CLEAR"))],
        ),
        (
            "add_alert_tca('{G}', 17, 'FIRED', 'over')",
            [(Effect.ALERT, (5.5, b"{G}", b"", b"17", b"", 1, b"over", b"FIRED"))],
        ),
        ("add_resource('{G}', nil, 'u')", [(Effect.RESOURCE, (5.5, b"{G}", b"", b"u", b""))]),
        (
            f"add_resource('{{G}}', '{FLOW}', 'u', 'a\\0b')",
            [(Effect.RESOURCE, (5.5, b"{G}", FLOW.encode(), b"u", b"a\0b"))],
        ),
        (f"tag_flow('{FLOW}', 'seen')", [(Effect.FLOW_UPDATE, (5.5, FLOW.encode(), b"tag", b"seen"))]),
        (
            f"add_flow_attribute('{FLOW}', 'user', 7)",
            [(Effect.FLOW_UPDATE, (5.5, FLOW.encode(), b"attribute:user", b"7"))],
        ),
        (f"update_flow('{FLOW}', '3', '10')", [(Effect.FLOW_UPDATE, (5.5, FLOW.encode(), b"meter:3", b"10"))]),
        (
            f"new_flow_record('{FLOW}', 1, '2', 3, 4)",
            [(Effect.FLOW_UPDATE, (5.5, FLOW.encode(), b"record", b"1 2 3 4"))],
        ),
        (f"set_flow_duration('{FLOW}', '1.25')", [(Effect.FLOW_UPDATE, (5.5, FLOW.encode(), b"duration", b"1.25"))]),
        (
            f"reset_flow_counter('{FLOW}', '{{G}}', 'k', 2)",
            [
                (Effect.RESET_FLOW_COUNTER, (5.5, -1, FLOW.encode(), b"{G}")),
                (Effect.FLOW_COUNTER, (5.5, -1, FLOW.encode(), b"{G}", b"k", 2, 0)),
            ],
        ),
        (f"disable_reassembly('{FLOW}')", [(Effect.DISABLE_REASSEMBLY, (FLOW.encode(),))]),
        ("add_edge('{g}', 1, '{H}', 'b')", [(Effect.EDGE, (b"{G}", b"1", b"{H}", b"b"))]),
        (f"add_flow_edges('{FLOW}', '{{G}}', 'k')", [(Effect.FLOW_EDGES, (FLOW.encode(), b"{G}", b"k"))]),
        ("post_message_backend('text')", [(Effect.MESSAGE, (b"backend", False, b"", b"text"))]),
        ("post_message_frontend('id', 5)", [(Effect.MESSAGE, (b"frontend", True, b"id", b"5"))]),
        ("post_message_frontend('id', '')", [(Effect.MESSAGE, (b"frontend", True, b"id", b""))]),
    ],
)
def test_what_a_call_leaves(call: str, expected: list[Any]) -> None:
    assert effects(f"engine:{call}") == expected


def test_guids_are_one_text_however_they_are_written() -> None:
    written = ("{4cd742b1-c1ca-4708-be78-0fca2eb01a86}", "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}")
    body = "".join(f"engine:set_key_attribute('{guid}', 'k', 'n', 'v') " for guid in written)
    assert {values[0] for _, values in effects(body)} == {b"{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}"}


def test_counters_are_summed_and_cross_when_asked_for() -> None:
    plugin = PluginLua()
    body = """
    for i = 1, 1000 do engine:update_counter('{G}', 'k', 0, 2) end
    engine:update_counter_raw('{G}', 'k', '0', '3')
    engine:update_counter('{G}', 'k', 1, -5)
    engine:update_counter('{G}', 42, 0, 0.5)
    """
    assert plugin.run(body) == []
    assert plugin.counted() == {("{G}", "k", 0): [2003], ("{G}", "k", 1): [-5], ("{G}", "42", 0): [0.5]}


def test_sums_start_anew_when_they_have_crossed() -> None:
    plugin = PluginLua()
    plugin.run("engine:update_counter('{G}', 'k', 0, 4)")
    assert plugin.counted() == {("{G}", "k", 0): [4]}
    assert plugin.counted() == {}
    plugin.host[b"events"](0.0, b"topic", b"")
    assert plugin.counted() == {("{G}", "k", 0): [4]}


def test_samples_are_aggregated_by_the_type_of_the_meter() -> None:
    plugin = PluginLua(meter_types={"{G}": bytes([2, 4, 5, 8, 9, 10, 11, 12])})
    samples = (
        "for _, value in ipairs { 5, 2, 9 } do for m = 0, 7 do engine:update_counter('{g}', 'k', m, value) end end"
    )
    plugin.run(samples)
    expected = [[16], [16], [9], [16], [16, 3], [5, 9, 9], [9], [2]]  # it fell from 5 to 2: began anew
    assert plugin.counted() == {("{G}", "k", meter): cell for meter, cell in enumerate(expected)}


@pytest.mark.parametrize(
    "call",
    [
        "update_counter(nil, 'k', 0, 1)",
        "update_counter('{G}', nil, 0, 1)",
        "update_counter('{G}', 'k', 'x', 1)",
        "update_counter('{G}', 'k', 0, {})",
        "update_key_info('{G}', 'k', nil)",
        "set_key_attribute('{G}', 'k', {}, 'v')",
        "add_alert('{G}', nil, nil, 1, 'm')",
        "add_alert('{G}', nil, 's', 'high', 'm')",
        "add_resource('{G}', nil, nil)",
        "tag_flow(nil, 'tag')",
        "tag_flow('flow', nil)",
        "add_flow_attribute('flow', nil, 'v')",
        "update_flow('flow', 8, 1)",
        "update_flow('flow', 1.5, 1)",
        "update_flow('flow', 0/0, 1)",
        "new_flow_record('flow', 1, 2, 3)",
        "set_flow_duration('flow', 'long')",
        "disable_reassembly(nil)",
        "add_edge('{G}', 'a', '{G}')",
        "add_flow_edges('flow', '{G}')",
        "post_message_backend(nil)",
        "post_message_backend({}, 'm')",
        "post_message_backend(nil, 'm')",
        "update_counter_bytes('{G}', 'k', 0)",
    ],
)
def test_a_call_that_means_nothing_is_ignored_and_said_once(call: str) -> None:
    plugin = PluginLua()
    found = plugin.run(f"for i = 1, 3 do engine:{call} end engine:post_message_frontend('after')")
    assert [code for code, _ in found] == [Effect.MESSAGE]
    method = call.split("(")[0]
    assert [(level, text.startswith(f"engine:{method}: ".encode())) for level, text in plugin.logged] == [(5, True)]


def test_each_method_complains_for_itself() -> None:
    plugin = PluginLua()
    plugin.run("engine:tag_flow(nil, 't') engine:add_resource(nil) engine:tag_flow(nil, 't')")
    assert [text.split(b":")[1] for _, text in plugin.logged] == [b"tag_flow", b"add_resource"]


def test_what_the_engine_answers() -> None:
    body = (
        "say(engine:timestamp()) say(engine:instanceid()) say(engine:id()) say(engine:probeid()) say(type(engine:id()))"
    )
    assert answers(body, instanceid="1") == [b"5", b"1", b"1", b"probe0", b"string"]


def test_methods_that_record_return_nothing() -> None:
    told = {"timestamp", "instanceid", "id", "probeid"}
    body = "".join(
        f"local r = engine:{name}({arguments}) say('{name} ' .. tostring(r)) "
        for name, arguments in METHODS.items()
        if name not in told | {"update_counter_bytes"}
    )
    assert all(line.endswith(b" nil") for line in answers(body))
