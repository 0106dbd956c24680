"""Backend blocks are replaced while the engine runs; a bad version leaves the old one at work (spec 1.6)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine import Engine, ScriptLoadError
from engine.cli.reload import watch_scripts
from tests.pipeline.flush_rig import window
from tests.scripts import Collector, plugin, write
from tests.support import eventually


def version(word: str, rest: str = "") -> str:
    loads = f"onload = function() T.loginfo('load {word}') end, onunload = function() T.loginfo('unload {word}') end,"
    return plugin(f"{loads} {rest} engine_monitor = {{ onbeginflush = function() T.loginfo('{word}') end }}")


async def test_the_new_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    collector = Collector()
    path = write(tmp_path, version("one"))
    async with Engine([path], sinks=[collector]) as engine:
        await engine.flush(window())
        write(tmp_path, version("two"))
        assert await engine.reload(path) == ("engine_monitor",)
        await engine.flush(window(number=1))
        path.unlink()
        assert await engine.reload(path) == ()
        await engine.flush(window(number=2))
        assert engine.stats.plugins == ()
    assert collector.logged() == [
        "load one", "one", "load two", "unload one", "reloaded: engine_monitor", "two", "unload two",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("TrisulPlugin = {", "unexpected symbol"),
        ("error('no')", "no"),
        (plugin("onload = function() error('never') end, engine_monitor = {}"), "never"),
        (plugin("request_async_workers = 0, engine_monitor = {}"), "request_async_workers"),
    ],
)
async def test_a_bad_version_leaves_the_old_one_running_and_says_why(tmp_path: Path, bad: str, why: str) -> None:
    collector = Collector()
    path = write(tmp_path, version("one"))
    async with Engine([path], sinks=[collector]) as engine:
        write(tmp_path, bad)
        with pytest.raises(ScriptLoadError):
            await engine.reload(path)
        await engine.flush(window())
    assert "one" in collector.logged()
    assert any(why in line for line in collector.logged("ERROR"))


async def test_frontend_blocks_stay(tmp_path: Path) -> None:
    collector = Collector()
    event = "event_monitor = {{ onevent = function() T.loginfo('event {}') end }},"
    path = write(tmp_path, version("one", event.format("one")))
    async with Engine([path], sinks=[collector]) as engine:
        write(tmp_path, version("two", event.format("two")))
        await engine.reload(path)
        await engine.emit("t", "x")
        await engine.flush(window())
    assert [line for line in collector.logged() if "load" not in line] == ["event one", "two"]


async def test_changes_on_disk_are_seen(tmp_path: Path) -> None:
    collector = Collector()
    path = write(tmp_path, version("one"))
    async with Engine([path], sinks=[collector]) as engine:
        watching = asyncio.create_task(watch_scripts(engine, [path]))
        number = 0

        def changed() -> bool:
            """The watch may begin after a change: another one is made until it is seen."""
            nonlocal number
            number += 1
            if number % 200 == 1:
                fresh = write(tmp_path, version("two"), "fresh")
                os.replace(fresh, path)  # noqa: PTH105
            return "load two" in collector.logged()

        await eventually(changed)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
