"""Messages between scripts: later, to everybody who takes them, in order for each pair, counted."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from engine import Config, Engine
from engine.values.stats import MessageStats
from tests.scripts import ALERTS, Collector, assert_counts_close, on_event, on_message, plugin, write
from tests.support import eventually

ID = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}"
OTHER = "{85C0CCED-DA8D-4029-924A-A6AB87F62EF8}"

TELL = "T.loginfo(T.name .. ':' .. id .. ':' .. message)"
BROADCAST = 'engine:post_message_frontend("news")'


def listener(name: str, subscriptions: str = "") -> str:
    """A script that logs each message under a name."""
    chosen = f"message_subscriptions = {subscriptions}," if subscriptions else ""
    return on_message(TELL, rest=f"onload = function() T.name = '{name}' end, {chosen}")


async def posted(tmp_path: Path, body: str, *listeners: str) -> tuple[list[str], MessageStats]:
    """What listeners logged after an event made a script post, and the counts."""
    scripts = [write(tmp_path, on_event(body), "poster.lua")]
    scripts += [write(tmp_path, text, f"listener{number}.lua") for number, text in enumerate(listeners)]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.emit("t", "go")
    assert_counts_close(engine.stats)
    assert collector.logged("ERROR") == []
    return collector.logged(), engine.stats.messages


@pytest.mark.parametrize("subscriptions", ["", "{}", f'{{ "{ID}" }}', f'{{ "{OTHER}" }}'])
async def test_a_broadcast_reaches_everybody_with_an_empty_id(tmp_path: Path, subscriptions: str) -> None:
    told, counts = await posted(tmp_path, BROADCAST, listener("a", subscriptions), listener("b"))
    assert told == ["a::news", "b::news"]
    assert counts == MessageStats(posted=2, delivered=2)


@pytest.mark.parametrize(("class_id", "heard"), [(OTHER, True), (OTHER.lower(), True), (ID, False), ("", False)])
async def test_a_channel_reaches_listeners_of_its_class(tmp_path: Path, class_id: str, heard: bool) -> None:
    hook = "onchannelmessage = function(id, data) T.loginfo(id .. ' ' .. data:tostring() .. ' ' .. data:size()) end"
    listens = f"TrisulPlugin = {{ id = {{ name = 'l', clsid = '{class_id}' }}, channellistener = {{ {hook} }} }}"
    told, counts = await posted(tmp_path, f"T.host:broadcast('{ID}', '{OTHER}', 'one\\0two')", listens)
    assert told == ([f"{ID} one\0two 7"] if heard else [])
    assert counts == MessageStats(posted=int(heard), delivered=int(heard))


@pytest.mark.parametrize(
    ("subscriptions", "received"),
    [
        ("", True),
        ("{}", False),
        (f'{{ "{ID}" }}', True),
        (f'{{ "{OTHER}", "{ID}" }}', True),
        (f'{{ "{OTHER}" }}', False),
    ],
)
async def test_an_addressed_message_reaches_subscribers_and_who_named_none(
    tmp_path: Path, subscriptions: str, received: bool
) -> None:
    told, _ = await posted(tmp_path, f'engine:post_message_frontend("{ID}", "x")', listener("a", subscriptions))
    assert told == ([f"a:{ID}:x"] if received else [])


async def test_the_letter_case_of_an_id_does_not_matter_but_it_arrives_as_posted(tmp_path: Path) -> None:
    body = f'engine:post_message_frontend("{ID.lower()}", "x")'
    told, _ = await posted(tmp_path, body, listener("a", f'{{ "{ID}" }}'))
    assert told == [f"a:{ID.lower()}:x"]


async def test_a_message_may_hold_any_bytes(tmp_path: Path) -> None:
    script = on_message("T.loginfo(T.util.bin2hex(message))")
    told, _ = await posted(tmp_path, 'engine:post_message_frontend("\\0\\255a")', script)
    assert told == ["00ff61"]


async def test_the_sender_receives_its_own_later(tmp_path: Path) -> None:
    body = f"{BROADCAST} T.loginfo('hook done')"
    script = on_event(body, rest="onmessage = function(id, message) T.loginfo('own ' .. message) end")
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit("t", "go")
        await eventually(lambda: engine.stats.messages.delivered == 1)
    assert collector.logged() == ["hook done", "own news"]


async def test_nothing_is_delivered_inside_the_hook_of_another(tmp_path: Path) -> None:
    """The poster goes on with all events of its batch before the receiver hears of the first."""
    told, _ = await posted(tmp_path, f"for i = 1, 3 do {BROADCAST} T.loginfo(i) end", listener("a"))
    assert told == ["1", "2", "3", *["a::news"] * 3]


async def test_every_instance_of_a_script_receives(tmp_path: Path) -> None:
    text = plugin(
        "onmessage = function(id, message) T.loginfo(T.enginetype .. ' ' .. message) end,"
        "filex_monitor = { filter = function() end }, event_monitor = { onevent = function() end },"
        f"alert_monitor = {{ alert_guid = '{ALERTS}', onnewalert = function() end }}"
    )
    told, _ = await posted(tmp_path, BROADCAST, text)
    assert told == ["frontend news"] * 2


@pytest.mark.parametrize("side", ["frontend", "backend"])
async def test_a_message_goes_to_one_side_only(tmp_path: Path, side: str) -> None:
    backend = plugin(
        f"onmessage = function(id, message) T.loginfo('back ' .. message) end,"
        f"alert_monitor = {{ alert_guid = '{ALERTS}', onnewalert = function() end }}"
    )
    told, _ = await posted(tmp_path, f'engine:post_message_{side}("x")', backend, listener("front"))
    assert told == (["back x"] if side == "backend" else ["front::x"])


async def test_posting_to_nobody_is_silent(tmp_path: Path) -> None:
    told, counts = await posted(tmp_path, BROADCAST)
    assert (told, counts) == ([], MessageStats())


async def test_messages_of_a_pair_keep_their_order(tmp_path: Path) -> None:
    body = 'for i = 1, 200 do engine:post_message_frontend(event .. "-" .. i) end'
    scripts = [write(tmp_path, on_event(body, topics=f'"{name}"'), f"{name}.lua") for name in "ab"]
    scripts.append(write(tmp_path, on_message("T.loginfo(message)"), "receiver.lua"))
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("a", "a")
        await engine.emit("b", "b")
        await engine.emit("a", "A")
    told = collector.logged()
    assert len(told) == 600
    for name in ("a", "A", "b"):
        assert [each for each in told if each.startswith(name + "-")] == [f"{name}-{i}" for i in range(1, 201)]
    assert told.index("a-200") < told.index("A-1")


async def test_a_ping_pong_does_not_stall_the_loop_nor_the_other_plugins(tmp_path: Path) -> None:
    """Two plugins answer each other without end, and nobody else notices."""
    answer = "T.engine:post_message_frontend(T.to, 'ball')"
    scripts = [
        write(tmp_path, on_event(
            f"T.engine = engine; {answer}",
            topics='"serve"',
            rest=f"message_subscriptions = {{ '{own}' }}, onmessage = function() {answer} end,"
            f"onload = function() T.to = '{to}' end",
        ), name)
        for own, to, name in ((ID, OTHER, "ping.lua"), (OTHER, ID, "pong.lua"))
    ]  # fmt: skip
    scripts.append(write(tmp_path, on_event("T.loginfo(event)", topics='"other"'), "bystander.lua"))
    collector, lags = Collector(), list[float]()
    async with Engine(scripts, config=Config(drain_seconds=0.1), sinks=[collector]) as engine:
        await engine.emit("serve", "go")
        for number in range(50):
            loop = asyncio.get_running_loop()
            before = loop.time()
            await asyncio.sleep(0)
            lags.append(loop.time() - before)
            await engine.emit("other", str(number))
        await eventually(lambda: engine.stats.messages.delivered > 1_000)
        assert engine.stats.messages.dropped == 0
        await engine.unload("ping.lua")  # the ball goes nowhere now
        await eventually(lambda: not engine.stats.messages.pending)
    assert collector.logged() == [str(number) for number in range(50)]
    assert sorted(lags)[25] < 0.05
    assert_counts_close(engine.stats)


async def test_the_end_does_not_wait_for_a_ping_pong_for_ever(tmp_path: Path) -> None:
    forever = "engine:post_message_frontend('again')"
    script = on_event(
        f"T.engine = engine; {forever}", rest=f"onmessage = function() local engine = T.engine; {forever} end"
    )
    loop = asyncio.get_running_loop()
    async with Engine([write(tmp_path, script)], config=Config(drain_seconds=0.2)) as engine:
        await engine.emit("t", "go")
        began = loop.time()
        # Whatever happens, this test must end.
        rescue = threading.Timer(
            5.0, lambda: loop.call_soon_threadsafe(setattr, engine._pipeline.deliveries, "_limit", 0)
        )
        rescue.start()
    rescue.cancel()
    assert loop.time() - began < 4.0
    assert_counts_close(engine.stats)


async def test_past_the_limit_messages_are_dropped_counted_and_said(tmp_path: Path) -> None:
    scripts = [
        write(tmp_path, on_event("for i = 1, 10 do engine:post_message_frontend(i) end"), "flood.lua"),
        write(tmp_path, on_message("T.loginfo(message)"), "inbox.lua"),
        write(tmp_path, plugin("onload = function() end"), "deaf.lua"),
    ]
    collector = Collector()
    async with Engine(scripts, config=Config(message_limit=4), sinks=[collector]) as engine:
        await engine.emit("t", "go")
        await eventually(lambda: not engine.stats.messages.pending)
        assert engine.stats.messages == MessageStats(posted=10, delivered=4, dropped=6)
        await engine.emit("t", "go")
    assert collector.logged() == ["1", "2", "3", "4"] * 2
    assert engine.stats.messages == MessageStats(posted=20, delivered=8, dropped=12)
    warned = [each for each in collector.of("log") if each.level == "WARN"]
    assert {each.script for each in warned} == {"inbox.lua"}
    assert warned[0].text.startswith("too many messages wait")


async def test_an_error_in_onmessage_is_logged_counted_and_contained(tmp_path: Path) -> None:
    scripts = [
        write(tmp_path, on_event("for i = 1, 3 do engine:post_message_frontend(i) end"), "poster.lua"),
        write(tmp_path, on_message('if message == "2" then error("two") end T.loginfo("a" .. message)'), "moody.lua"),
        write(tmp_path, on_message('T.loginfo("b" .. message)'), "calm.lua"),
    ]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("t", "go")
    assert sorted(collector.logged()) == ["a1", "a3", "b1", "b2", "b3"]
    assert engine.stats.messages == MessageStats(posted=6, delivered=5, failed=1)
    (error,) = collector.logged("ERROR")
    assert error.startswith("onmessage: moody.lua:")


async def test_a_message_posted_while_unloading_is_delivered(tmp_path: Path) -> None:
    poster = on_event("T.engine = engine", rest='onunload = function() T.engine:post_message_frontend("bye") end')
    scripts = [write(tmp_path, poster, "poster.lua"), write(tmp_path, listener("a"), "listener.lua")]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("t", "go")
        await engine.unload("poster.lua")
        await eventually(lambda: collector.logged() == ["a::bye"], seconds=1)


async def test_a_message_posted_at_the_very_end_is_counted(tmp_path: Path) -> None:
    poster = on_event("T.engine = engine", rest='onunload = function() T.engine:post_message_frontend("bye") end')
    scripts = [write(tmp_path, poster, "poster.lua"), write(tmp_path, listener("a"), "listener.lua")]
    async with Engine(scripts) as engine:
        await engine.emit("t", "go")
    assert engine.stats.messages.posted == 1
    assert_counts_close(engine.stats)
