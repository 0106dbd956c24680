"""Reassembly handlers: what they are told of a connection, how they vote, and how they give one up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import Capture, Config, Engine
from engine.capture.decoder import Decoder
from tests.pipeline.talks import ALL, FLOW, Talk, capture_of, handler, scripts_of
from tests.scripts import Collector, on_file, run_capture
from tests.support import eventually

TALK = [(0, b"hello"), (1, b"welcome"), (0, b"more"), (1, b"bytes")]


def talk() -> Talk:
    said = Talk().begin()
    for direction, data in TALK:
        said.say(direction, data)
    return said.finish()


async def heard(tmp_path: Path, *texts: str, said: Talk | None = None) -> Collector:
    """What came out of a capture of one talk, every packet of it in a batch with the others."""
    collector, _ = await run_capture(capture_of(tmp_path, said or talk()), scripts_of(tmp_path, *texts))
    return collector


async def run_bare(path: Path, *scripts: Path) -> dict[str, int]:
    """How often each hook was called in a run without sinks."""
    async with Engine(scripts) as engine:
        assert engine.load_errors == ()
        await engine.run(Capture(path))
        return {f"{each.script} {hook.name}": hook.calls for each in engine.stats.plugins for hook in each.hooks}


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the decoder was told not to hand out any more: streams, or their bytes."""
    told: list[str] = []
    for name in ("ignore", "mute"):
        method = getattr(Decoder, name)

        def tell(decoder: Decoder, stream: int, name: str = name, method: Any = method) -> None:
            told.append(f"{name} {stream}")
            method(decoder, stream)

        monkeypatch.setattr(Decoder, name, tell)
    return told


async def test_all_hooks_in_their_order_with_their_arguments(tmp_path: Path) -> None:
    collector = await heard(tmp_path, handler(*ALL))
    assert collector.logged() == [
        f"filter 1000 {FLOW}",
        f"new 1000 {FLOW}",
        "attribute 1000  ",
        "payload 1000 1 0 hello",
        "payload 1000 0 0 welcome",
        "payload 1000 1 5 more",
        "payload 1000 0 7 bytes",
        "attribute 1001 ^D ",
        f"end 1001 {FLOW}",
    ]
    assert collector.logged("ERROR") == []


async def test_a_hole_shows_in_the_position(tmp_path: Path) -> None:
    said = Talk().begin().say(0, b"abc").lose(0, 10).say(0, b"def").finish()
    assert (await heard(tmp_path, handler("onpayload"), said=said)).logged() == [
        "payload 1000 1 0 abc",
        "payload 1000 1 13 def",
    ]


async def test_long_data_comes_in_order_without_seams(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    said = Talk().begin()
    for at in range(0, len(data), 1024):
        said.say(1, data[at : at + 1024])
    body = (
        "T.seen = T.seen or 0 if seekpos ~= T.seen then error('a seam') end "
        "for i = 0, buffer:size() - 1 do if buffer:hval_8(i) ~= (seekpos + i) % 256 then error('a byte') end end "
        "T.seen = seekpos + buffer:size()"
    )
    text = handler(onpayload=body, onterminateflow="T.loginfo(T.seen)")
    collector = await heard(tmp_path, text, said=said)
    assert collector.logged("ERROR") == []
    assert collector.logged() == [str(len(data))]


async def test_a_flow_that_never_ends_ends_with_the_capture(tmp_path: Path) -> None:
    said = Talk().begin().say(0, b"hello")
    assert (await heard(tmp_path, handler("onterminateflow"), said=said)).logged() == [f"end 1000 {FLOW}"]


async def test_a_silent_flow_ends_when_its_time_is_over(tmp_path: Path) -> None:
    other = Talk(start=2000, port=50000, server_port=81).say(0, b"much later")
    path = capture_of(tmp_path, Talk().begin().say(0, b"hello"), other)
    collector, _ = await run_capture(path, scripts_of(tmp_path, handler("onpayload", "onterminateflow")))
    assert collector.logged()[:2] == ["payload 1000 1 0 hello", f"end 2000 {FLOW}"]


async def test_the_end_comes_once_when_a_run_is_left_in_the_middle(tmp_path: Path) -> None:
    """A CLOSE is never decoded then."""
    collector = Collector()
    text = handler("onattribute", "onterminateflow", onpayload="T.loginfo('payload')")
    many = [Talk(start=1000 + each, port=20000 + each).say(0, b"x") for each in range(200)]
    async with Engine(scripts_of(tmp_path, text), sinks=[collector]) as engine:
        reading = asyncio.create_task(engine.run(Capture(capture_of(tmp_path, *many))))
        await eventually(lambda: engine.stats.decode.streams > 0)
        reading.cancel()
        await asyncio.wait([reading])
    told = collector.logged()
    opened = sum(line.startswith("attribute ") and line.endswith("  ") for line in told)
    assert 0 < opened < 200
    assert sum(line.startswith("end ") for line in told) == sum("^D" in line for line in told) == opened


async def test_the_flow_may_be_kept_and_used_later(tmp_path: Path) -> None:
    text = handler(onnewflow="T.kept = flow", onterminateflow="tell(T.kept:id(), T.kept:porta_readable())")
    assert (await heard(tmp_path, text)).logged() == [f"{FLOW} 40000"]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["return true"], True),
        (["return false"], False),
        (["return false", "return false"], False),
        (["return false", "return true"], True),
        (["return false", None], True),
        (["error('no')"], True),
        ([""], True),
        (["return 0"], True),
        ([None], True),
    ],
    ids=["yes", "no", "no-no", "no-yes", "no-none", "error", "nil", "number", "none"],
)
async def test_only_a_unanimous_no_leaves_a_flow_out(tmp_path: Path, filters: list[str | None], kept: bool) -> None:
    texts = [
        handler(
            "onnewflow", "onattribute", "onpayload", "onterminateflow", **({"filter": each} if each is not None else {})
        )
        for each in filters
    ]
    told = (await heard(tmp_path, *texts)).logged()
    assert told == [] or kept
    assert [line.split()[0] for line in told].count("payload") == (4 * len(filters) if kept else 0)
    assert [line.split()[0] for line in told].count("end") == (len(filters) if kept else 0)


async def test_a_vote_that_is_no_boolean_is_warned_about_once(tmp_path: Path) -> None:
    talks = [Talk(port=port).say(0, b"x") for port in (50001, 50002)]
    path = capture_of(tmp_path, *talks)
    collector, _ = await run_capture(path, scripts_of(tmp_path, handler(filter="return 0")))
    assert collector.logged("WARN") == ["reassembly_handler.filter returned no boolean, which counts as true"]


async def test_what_all_refuse_is_not_reassembled(tmp_path: Path, left_out: list[str]) -> None:
    said = Talk().begin()
    for number in range(200):
        said.say(0, b"%d " % number)
    path = capture_of(tmp_path, said)
    calls = await run_bare(path, *scripts_of(tmp_path, handler(filter="return false", onpayload="")))
    assert calls == {"0.lua onload": 1, "0.lua filter": 1}
    assert left_out == ["ignore 1"]


@pytest.mark.parametrize("key", ["flow:id()", "flow:key()", "flow"])
async def test_a_script_gives_a_flow_up_at_once(tmp_path: Path, key: str) -> None:
    """In the middle of a batch, too; its attributes and its end still come."""
    text = handler(
        "onattribute",
        "onterminateflow",
        onpayload=f"tell('payload', buffer:tostring()) if seekpos == 0 and direction == 0 then "
        f"engine:disable_reassembly({key}) end",
    )
    assert (await heard(tmp_path, text, handler("onpayload"))).logged() == [
        "attribute 1000  ",
        "payload hello",
        "payload 1000 1 0 hello",
        "payload welcome",
        "payload 1000 0 0 welcome",
        "payload 1000 1 5 more",
        "payload 1000 0 7 bytes",
        "attribute 1001 ^D ",
        f"end 1001 {FLOW}",
    ]


@pytest.mark.parametrize("hook", ["filter", "onnewflow", "onattribute"])
async def test_a_flow_may_be_given_up_in_any_hook(tmp_path: Path, hook: str) -> None:
    text = handler("onpayload", "onterminateflow", **{hook: "engine:disable_reassembly(flow:id())"})
    told = (await heard(tmp_path, text)).logged()
    assert [line.split()[0] for line in told] == ["end"]


async def test_a_flow_given_up_later_brings_no_more_bytes(tmp_path: Path) -> None:
    """From onresult, which runs between two batches."""
    said = Talk().begin()
    for number in range(2000):
        said.say(0, b"%d " % number)
    body = (
        "T.calls = (T.calls or 0) + 1 if seekpos > 0 then return end local id = flow:id() "
        "T.async:schedule{ data = id, onexecute = function(id) return id end, "
        "onresult = function(engine, id, out) engine:disable_reassembly(out) end }"
    )
    text = handler(onpayload=body, onterminateflow="tell(T.calls < 2000, 'end')")
    calls = await run_bare(capture_of(tmp_path, said), *scripts_of(tmp_path, text))
    assert 0 < calls["0.lua onpayload"] < 2000
    assert calls["0.lua onterminateflow"] == 1


async def test_a_new_connection_of_the_same_ends_is_not_given_up(tmp_path: Path) -> None:
    first = Talk().begin().say(0, b"first").say(1, b"x").say(0, b" more").finish()
    second = Talk(start=1002).begin().say(0, b"second").say(1, b"x").say(0, b" more").finish()
    text = handler(
        "onterminateflow",
        onpayload="tell(buffer:tostring()) if seekpos > 0 then error('given up') end "
        "engine:disable_reassembly(flow:id())",
    )
    path = capture_of(tmp_path, first, second)
    collector, _ = await run_capture(path, scripts_of(tmp_path, text))
    assert collector.logged() == ["first", f"end 1001 {FLOW}", "second", f"end 1002 {FLOW}"]
    assert collector.logged("ERROR") == []


@pytest.mark.parametrize(("hooks", "how"), [((), "ignore 1"), (("onterminateflow",), "mute 1")])
async def test_when_nobody_wants_a_flow_any_more_it_is_left_out(
    tmp_path: Path, left_out: list[str], hooks: tuple[str, ...], how: str
) -> None:
    said = Talk().begin()
    for number in range(1500):
        said.say(0, b"%d " % number)
    path = capture_of(tmp_path, said.finish())
    give_up = "engine:disable_reassembly(flow:id())"
    scripts = scripts_of(tmp_path, handler(*hooks, onpayload=give_up), handler(onpayload=give_up))
    calls = await run_bare(path, *scripts)
    assert calls["0.lua onpayload"] == calls["1.lua onpayload"] == 1
    assert calls.get("0.lua onterminateflow", 0) == len(hooks)
    assert left_out == [how]


async def test_a_flow_given_up_for_files_is_read_on(tmp_path: Path) -> None:
    """Both share one stream."""
    said = Talk().begin().say(0, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
    said.say(1, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").say(1, b"56789").finish()
    text = handler("onterminateflow", onpayload="T.loginfo('payload') engine:disable_reassembly(flow:id())")
    files = on_file("T.loginfo(length)")
    assert (await heard(tmp_path, text, files, said=said)).logged() == ["payload", "10", f"end 1001 {FLOW}"]


async def test_a_filex_monitor_needs_every_byte(tmp_path: Path) -> None:
    said = Talk().begin().say(0, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
    said.say(1, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").say(1, b"56789").finish()
    files = on_file("T.loginfo(length)").replace(
        "filex_monitor = {",
        "filex_monitor = { filter = function(engine, ts, flow) engine:disable_reassembly(flow) return true end,",
    )
    assert (await heard(tmp_path, files, said=said)).logged() == ["10"]


async def test_a_script_that_raises_keeps_running_and_disturbs_nobody(tmp_path: Path) -> None:
    raising = handler(**dict.fromkeys(ALL, "error('broken')"))
    collector = await heard(tmp_path, raising, handler("onpayload"))
    assert [line.split()[-1] for line in collector.logged()] == ["hello", "welcome", "more", "bytes"]
    errors = [line.split(":")[0] for line in collector.logged("ERROR")]
    hooks = ["filter", "onnewflow", "onattribute", *["onpayload"] * 4, "onattribute", "onterminateflow"]
    assert errors == [f"reassembly_handler.{hook}" for hook in hooks]


async def test_every_call_and_error_is_counted(tmp_path: Path) -> None:
    text = handler(**dict.fromkeys(ALL, "error('broken')"))
    async with Engine(scripts_of(tmp_path, text)) as engine:
        await engine.run(Capture(capture_of(tmp_path, talk())))
    [plugin] = engine.stats.plugins
    counted = {each.name: (each.calls, each.errors) for each in plugin.hooks if each.name in ALL}
    assert counted == {
        "filter": (1, 1),
        "onnewflow": (1, 1),
        "onpayload": (4, 4),
        "onattribute": (2, 2),
        "onterminateflow": (1, 1),
    }


async def test_a_slow_hook_is_named(tmp_path: Path) -> None:
    text = handler(onpayload="local till = os.clock() + 0.02 while os.clock() < till do end")
    collector, _ = await run_capture(
        capture_of(tmp_path, talk()), scripts_of(tmp_path, text), Config(slow_hook_seconds=0.01)
    )
    assert collector.logged("WARN")[0].startswith("reassembly_handler.onpayload held the loop for ")


async def test_the_side_whose_packet_came_first_is_the_client_without_a_handshake(tmp_path: Path) -> None:
    said = Talk().say(1, b"banner").say(0, b"answer")
    told = (await heard(tmp_path, handler("onpayload"), said=said)).logged()
    assert {line.split()[2] + line.split()[-1] for line in told} == {"1banner", "0answer"}


async def test_a_handler_with_a_misnamed_hook_runs_and_hints(tmp_path: Path) -> None:
    text = handler("onpayload").replace(
        "reassembly_handler = {", "reassembly_handler = { onterminate = function() end,"
    )
    collector = await heard(tmp_path, text)
    assert len(collector.logged()) == 4


async def test_the_engine_object_takes_what_the_hook_found(tmp_path: Path) -> None:
    group = "{38497403-23FB-4206-65C2-0AD5C419DD53}"
    body = f"engine:tag_flow(flow:id(), 'talk') engine:update_counter('{group}', 'k', 0, buffer:size())"
    collector = await heard(tmp_path, handler(onpayload=body))
    assert [each.tags for each in collector.of("flow")] == ["talk"]
    assert [(each.key, each.value) for each in collector.of("counter")] == [("k", sum(len(data) for _, data in TALK))]


async def test_a_plugin_unloaded_while_reading_is_called_no_more(tmp_path: Path) -> None:
    said = Talk().begin()
    for number in range(3000):
        said.say(0, b"%d " % number)
    scripts = scripts_of(tmp_path, handler(onpayload=""), handler("onterminateflow", onpayload=""))
    async with Engine(scripts) as engine, engine.subscribe("log") as logs:
        reading = asyncio.create_task(engine.run(Capture(capture_of(tmp_path, said.finish()))))
        await eventually(lambda: engine.stats.decode.packets >= 100)
        await engine.unload("0.lua")
        await reading
        [plugin] = engine.stats.plugins
        assert plugin.script == "1.lua"
        assert engine.stats.script_errors == 0
        line = await anext(logs)
        while "end" not in getattr(line, "text", ""):
            line = await anext(logs)
