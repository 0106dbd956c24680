"""The door for services: every event in is handled, dropped, failed or still waits, from whatever thread it came."""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import enum
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from engine import Config, Engine, Packed
from engine.values.stats import EventStats
from tests.scripts import Collector, assert_counts_close, on_event, write
from tests.support import eventually

ECHO = on_event("T.loginfo(topic .. '=' .. tostring(event))")


async def emitted(tmp_path: Path, script: str, *events: tuple[str, Any]) -> Collector:
    """What a script logged about some events."""
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        for topic, event in events:
            await engine.emit(topic, event)
    assert_counts_close(engine.stats)
    assert engine.stats.events.handled == len(events)
    return collector


async def test_emit_has_handled_the_event_when_it_returns(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], sinks=[collector]) as engine:
        await engine.emit("a.b", "first")
        assert collector.logged() == ["a.b=first"]
        assert engine.stats.events == EventStats(received=1, handled=1)
        assert_counts_close(engine.stats)


async def test_text_and_bytes_arrive_as_strings_with_all_their_bytes(tmp_path: Path) -> None:
    script = on_event("T.loginfo(type(event) .. #event .. ':' .. T.util.bin2hex(event))")
    collector = await emitted(tmp_path, script, ("t", b"a\0\xff\n"), ("t", "\u20ac"), ("t", b""))
    assert collector.logged() == ["string4:6100ff0a", "string3:e282ac", "string0:"]


async def test_a_nested_mapping_arrives_as_tables(tmp_path: Path) -> None:
    script = on_event(
        "T.loginfo(table.concat({ event.name, event.raw, tostring(event.none), event.list[1], event.list[3].x, "
        'tostring(event.yes), event.deep.er["a b"], event[7], #event.list }, "|"))'
    )
    event = {
        "name": "n\u00e9",
        "raw": b"r\0w",
        "none": None,
        "list": (1, 2.5, {"x": "third"}),
        "yes": True,
        "deep": {"er": {"a b": -1}},
        7: bytearray(b"seven"),
    }
    collector = await emitted(tmp_path, script, ("t", event))
    assert collector.logged() == ["n\u00e9|r\0w|nil|1|third|true|-1|seven|3"]


async def test_the_hook_gets_stream_time_with_its_fraction(tmp_path: Path) -> None:
    script = on_event("T.loginfo(tostring(ts > 1.5e9 and ts % 1 ~= 0))")
    collector = await emitted(tmp_path, script, *[("t", "x")] * 3)
    assert "true" in collector.logged()


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"a": {"b": [1, {2, 3}]}}, r"event\.a\.b\[1\] is a set"),
        ({"when": object()}, r"event\.when is a object"),
        ({(1, object()): 1}, r"key of event"),
        (5j, r"event is a complex"),
    ],
)
async def test_what_lua_cannot_hold_is_refused_by_field_and_counted(tmp_path: Path, event: Any, named: str) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], sinks=[collector]) as engine:
        with pytest.raises(TypeError, match=named):
            await engine.emit_batch("t", [{"fine": 1}, event])
        assert engine.stats.events == EventStats(received=2, failed=2)
        await engine.emit("t", "next")
    assert collector.logged() == ["t=next"]
    assert_counts_close(engine.stats)


@pytest.mark.parametrize("event", [{"n": 1 << 70}, {"n": -(1 << 64)}, {"s": "\ud800"}, "\ud800"], ids=ascii)
async def test_no_event_goes_uncounted_however_odd_it_is(tmp_path: Path, event: Any) -> None:
    """It may be handled or refused; what it may not do is to vanish, or to break the loop's callback."""
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: broken.append(context))
    async with Engine([write(tmp_path, ECHO)]) as engine:
        with contextlib.suppress(TypeError, ValueError):
            await engine.emit("t", event)
        assert engine.stats.events.received == 1
        assert_counts_close(engine.stats)
        engine.emit_nowait("t", event)
        await eventually(lambda: not engine.stats.events.pending)
        await engine.emit("t", "next")
        assert engine.stats.events.received == 3
    assert_counts_close(engine.stats)
    assert broken == []


def test_a_key_that_is_no_number_does_not_end_the_process(tmp_path: Path) -> None:
    script = write(tmp_path, ECHO)
    program = f"""
import asyncio
from engine import Engine
async def main():
    async with Engine([{str(script)!r}]) as engine:
        try:
            await engine.emit("t", {{float("nan"): 1}})
        except (TypeError, ValueError) as exc:
            print("refused")
        await engine.emit("t", "next")
        print(engine.stats.events.received)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused", "2"])


@pytest.mark.parametrize("single", [{"a": 1}, b"bytes", "text"])
async def test_a_batch_is_not_a_single_event(single: Any) -> None:
    async with Engine() as engine:
        with pytest.raises(TypeError, match="use emit for a single one"):
            await engine.emit_batch("t", single)
        assert engine.stats.events.received == 0


@pytest.mark.parametrize("size", [0, 1, 64, 65, 1_000])
async def test_a_batch_keeps_its_order(tmp_path: Path, size: int) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], sinks=[collector]) as engine:
        await engine.emit_batch("t", (str(number) for number in range(size)))
        assert engine.stats.events == EventStats(received=size, handled=size)
    assert collector.logged() == [f"t={number}" for number in range(size)]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1_000])
async def test_packed_events_keep_their_order_and_their_bytes(tmp_path: Path, size: int) -> None:
    events = [b"\xff\0" * (number % 5) + str(number).encode() for number in range(size)]
    packed = Packed(b"".join(events), [len(event) for event in events])
    script = on_event("T.loginfo(T.util.bin2hex(event))")
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", packed)
        assert engine.stats.events == EventStats(received=size, handled=size)
    assert collector.logged() == [event.hex() for event in events]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1_000])
async def test_a_batch_of_byte_strings_keeps_its_order_and_its_bytes(tmp_path: Path, size: int) -> None:
    events = [b"\xff\0" * (number % 300) + str(number).encode() for number in range(size)]
    script = on_event("T.loginfo(T.util.bin2hex(event))")
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", events)
        await engine.emit_batch("t", [bytearray(event) for event in events])
        assert engine.stats.events == EventStats(received=2 * size, handled=2 * size)
    assert collector.logged() == [event.hex() for event in events] * 2


@pytest.mark.parametrize(("data", "lengths"), [(b"abc", [1, 1]), (b"abc", [4, -1]), (b"", [1]), (b"a", [])])
def test_packed_events_whose_lengths_are_wrong_are_refused(data: bytes, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="packed events"):
        Packed(data, lengths)


class _Kind(enum.IntEnum):
    SMALL = 3


async def test_what_is_not_quite_plain_takes_the_slow_way_and_arrives_the_same(tmp_path: Path) -> None:
    """Numbers, mappings and sequences of other kinds, also those that show their memory as if they were bytes."""
    script = on_event("T.loginfo(tostring(event.a) .. ' ' .. type(event.list) .. ' ' .. tostring(event.list[2]))")
    events: list[Any] = [
        {"a": _Kind.SMALL, "list": array.array("d", [1.5, 2.5])},
        collections.OrderedDict(a=b"raw", list=(1, 2)),
        types.MappingProxyType({"a": bytearray(b"by"), "list": collections.deque([7, 8])}),
        {"a": b"raw", "list": [b"x", memoryview(b"y")]},
    ]
    expected = ["3 table 2.5", "raw table 2", "by table 8", "raw table y"]
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", events)
        for event in events:
            await engine.emit("t", event)
    assert collector.logged() == expected * 2
    assert_counts_close(engine.stats)


async def test_a_hook_may_write_into_an_event_that_is_emitted_twice(tmp_path: Path) -> None:
    script = on_event("event.n = event.n + 1 event.inner[1] = event.inner[1] + 1 T.loginfo(event.n + event.inner[1])")
    event = {"n": 0, "inner": [0]}
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", [event] * 3)
    assert collector.logged() == ["2"] * 3
    assert event == {"n": 0, "inner": [0]}


async def test_events_of_several_kinds_in_a_batch_keep_their_order(tmp_path: Path) -> None:
    script = on_event("T.loginfo(type(event) == 'table' and event.n or event)")
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", ["a", {"n": 1}, b"b", {"n": 2}])
    assert collector.logged() == ["a", "1", "b", "2"]


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
async def test_a_packed_event_that_raises_fails_alone(tmp_path: Path, bad: int) -> None:
    collector = Collector()
    script = on_event(f"if event == '{bad}' then error('no') end T.loginfo(event)")
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", Packed(b"0123", [1, 1, 1, 1]))
        await engine.emit_batch("t", [b"0", b"1", b"2", b"3"])
        assert engine.stats.events == EventStats(received=8, handled=6, failed=2)
    assert collector.logged() == [each for each in "0123" if each != str(bad)] * 2


@pytest.mark.parametrize("kind", [bytes, dict])
async def test_a_batch_outlives_the_garbage_that_its_hook_makes(tmp_path: Path, kind: type) -> None:
    script = on_event(
        "local text = type(event) == 'table' and event.n or event\n"
        "if #text ~= 5 or text:find('%D') then error(text) end "
        "junk = {}  for i = 1, 20 do junk[i] = text:rep(i) end  sum = (sum or 0) + tonumber(text)",
        rest="onunload = function() T.loginfo(('%.0f'):format(sum)) end",
    )
    texts = [b"%05d" % number for number in range(20_000)]
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        await engine.emit_batch("t", texts if kind is bytes else [{"n": text.decode()} for text in texts])
        assert engine.stats.events.failed == 0
    assert collector.logged() == [str(sum(range(20_000)))]


async def test_what_a_hook_leaves_goes_on_though_other_events_left_nothing(tmp_path: Path) -> None:
    """An outbox is looked into only when something is there: alerts, counters, async work."""
    script = on_event(
        "if event == 'work' then T.async:schedule{ onexecute = function() return 'x' end, "
        "onresult = function() T.loginfo('done') end } end "
        "if event == 'count' then engine:update_counter('{A0000000-0000-0000-0000-000000000001}', 'k', 0, 1) end"
    )
    collector = Collector()
    async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
        for event in (b"nothing", b"count", b"nothing", b"work", b"nothing", b"work"):
            await engine.emit("t", event)
    assert collector.logged() == ["done", "done"]
    assert [counter.value for counter in collector.of("counter")] == [1]


async def test_topics_choose_the_plugins(tmp_path: Path) -> None:
    scripts = [
        write(tmp_path, on_event(f"T.loginfo('{name}:' .. topic)", topics=topics), f"{name}.lua")
        for name, topics in (("all", ""), ("one", '"order.*"'), ("deep", '{ "order.**", "other" }'))
    ]
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        for topic in ("order.new", "order.new.x", "other", "none"):
            await engine.emit(topic, "e")
        assert engine.stats.events == EventStats(received=4, handled=4)
    assert collector.logged() == [
        *("all:order.new", "one:order.new", "deep:order.new"),
        *("all:order.new.x", "deep:order.new.x"),
        *("all:other", "deep:other"),
        "all:none",
    ]


async def test_an_event_nobody_listens_to_is_handled(tmp_path: Path) -> None:
    async with Engine() as engine:
        await engine.emit("t", object())  # type: ignore[arg-type]  # nobody looks at it
        assert engine.stats.events == EventStats(received=1, handled=1)


async def test_a_hook_that_raises_fails_its_events_only(tmp_path: Path) -> None:
    script = write(tmp_path, on_event('if event == "bad" then error("oh no") end T.loginfo(event)'), "moody.lua")
    collector = Collector()
    async with Engine([script], sinks=[collector]) as engine:
        await engine.emit_batch("t", ["a", "bad", "b", "bad", "c"])
        assert engine.stats.events == EventStats(received=5, handled=3, failed=2)
        assert engine.stats.script_errors == 2
    assert collector.logged() == ["a", "b", "c"]
    (first, _) = collector.logged("ERROR")
    assert first.startswith("event_monitor.onevent: moody.lua:4: oh no\nstack traceback:")


async def test_events_that_fail_in_different_plugins_each_count(tmp_path: Path) -> None:
    scripts = [write(tmp_path, on_event(f'if event == "{n}" then error("x") end'), f"{n}.lua") for n in (1, 2)]
    async with Engine(scripts) as engine:
        await engine.emit_batch("t", ["1", "2", "3"])
        assert engine.stats.events == EventStats(received=3, handled=1, failed=2)


async def test_emit_nowait_leaves_events_for_the_next_turn_in_order(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], sinks=[collector]) as engine:
        assert all(engine.emit_nowait("t", str(number)) for number in range(100))
        assert engine.stats.events == EventStats(received=100, pending=100)
        assert collector.logged() == []
        await eventually(lambda: not engine.stats.events.pending)
        assert engine.stats.events == EventStats(received=100, handled=100)
    assert collector.logged() == [f"t={number}" for number in range(100)]


async def test_past_the_limit_events_are_dropped_and_counted(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], config=Config(event_limit=3), sinks=[collector]) as engine:
        assert [engine.emit_nowait("t", str(number)) for number in range(5)] == [True] * 3 + [False] * 2
        assert engine.stats.events == EventStats(received=5, dropped=2, pending=3)
        await eventually(lambda: not engine.stats.events.pending)
        assert engine.emit_nowait("t", "again")
    assert collector.logged() == ["t=0", "t=1", "t=2", "t=again"]
    assert engine.stats.events == EventStats(received=6, handled=4, dropped=2)


async def test_a_bad_event_left_for_later_is_logged_and_counted(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, ECHO)], sinks=[collector]) as engine:
        engine.emit_nowait("t", {"when": object()})
        engine.emit_nowait("t", "next")
        await eventually(lambda: not engine.stats.events.pending)
    assert engine.stats.events == EventStats(received=2, handled=1, failed=1)
    assert any("event.when is a object" in line for line in collector.logged("ERROR"))
    assert collector.logged() == ["t=next"]


async def test_threads_lose_no_event_and_keep_their_own_order(tmp_path: Path) -> None:
    collector = Collector()
    async with Engine([write(tmp_path, on_event("T.loginfo(event)"))], sinks=[collector]) as engine:
        start = threading.Barrier(4)

        def produce(name: int) -> None:
            start.wait(5)
            for number in range(250):
                engine.emit_threadsafe("t", f"{name}:{number}")

        threads = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        await eventually(lambda: engine.stats.events.handled == 1_000)
        for thread in threads:
            thread.join()
        assert_counts_close(engine.stats)
    for name in range(4):
        own = [line for line in collector.logged() if line.startswith(f"{name}:")]
        assert own == [f"{name}:{number}" for number in range(250)]


async def test_two_threads_at_once_still_wake_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have left their event before either looks at how many wait."""
    async with Engine([write(tmp_path, ECHO)]) as engine:
        await engine.emit_batch("t", [])
        engine.emit_nowait("t", "settle what loading has left")
        await eventually(lambda: engine.stats.events.handled == 1)
        both, original = threading.Barrier(2), engine._pipeline.door.post

        def post(topic: str, event: Any) -> Any:
            taken = original(topic, event)
            both.wait(5)
            return taken

        monkeypatch.setattr(engine._pipeline.door, "post", post)
        threads = [threading.Thread(target=engine.emit_threadsafe, args=("t", "x")) for _ in range(2)]
        for thread in threads:
            thread.start()
        await eventually(lambda: not any(thread.is_alive() for thread in threads))
        await eventually(lambda: engine.stats.events.handled == 3, seconds=1)


async def test_emit_threadsafe_is_bounded_too(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, ECHO)], config=Config(event_limit=2)) as engine:
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.extend(engine.emit_threadsafe("t", "x") for _ in range(4)))
        thread.start()
        thread.join()  # the loop has no turn meanwhile
        assert taken == [True, True, False, False]
        await eventually(lambda: engine.stats.events.handled == 2)
    assert engine.stats.events == EventStats(received=4, handled=2, dropped=2)


async def test_a_long_batch_lets_the_loop_run(tmp_path: Path) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    config = Config(slice_seconds=0.0001, slow_hook_seconds=10)
    async with Engine([write(tmp_path, on_event("for i = 1, 1e4 do end"))], config=config) as engine:
        counting = asyncio.create_task(count_turns())
        await engine.emit_batch("t", ["x"] * 5_000)
        assert turns >= 5
        counting.cancel()
