"""Small Lua scripts, engines that run them, and what came out: shared by the tests of plugins and of the pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from engine import Capture, Config, Engine, EngineStats
from engine.values.records import Record
from tests.support import no_threads_left

ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"
OTHER_ALERTS = "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}"
HASHES = "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}"
URIS = "{4EF9DEB9-4332-4867-A667-6A30C5900E9E}"


def plugin(body: str, name: str = "test", clsid: str = "") -> str:
    """A script whose table TrisulPlugin has this body beside its id."""
    return f'TrisulPlugin = {{ id = {{ name = "{name}", clsid = "{clsid}" }},\n{body}\n}}\n'


def on_event(body: str, *, topics: str = "", rest: str = "", before: str = "") -> str:
    """A script with an event_monitor; its hook has `engine`, `ts`, `topic` and `event`."""
    chosen = f"topics = {topics}, " if topics else ""
    hook = f"onevent = function(engine, ts, topic, event)\n{body}\nend"
    return before + "\n" + plugin(f"event_monitor = {{ {chosen}{hook} }},\n{rest}")


def on_file(body: str, *, rest: str = "", before: str = "") -> str:
    """A script with a filex_monitor; its hook has the arguments of onfile_http."""
    arguments = "engine, ts, flowkey, path, req, resp, length, is_partial"
    return before + "\n" + plugin(f"filex_monitor = {{ onfile_http = function({arguments})\n{body}\nend }},\n{rest}")


def on_message(body: str, *, rest: str = "", before: str = "") -> str:
    """A script without a block that takes messages; its hook has `id` and `message`."""
    return before + "\n" + plugin(f"onmessage = function(id, message)\n{body}\nend,\n{rest}")


def on_alert(body: str, *, guid: str = f'"{ALERTS}"', rest: str = "") -> str:
    """A script with an alert_monitor; its hook has `engine` and `alert`."""
    hook = f"onnewalert = function(engine, alert)\n{body}\nend"
    return plugin(f"alert_monitor = {{ alert_guid = {guid}, {hook} }},\n{rest}")


def on_resource(body: str, *, guid: str = f'"{HASHES}"', rest: str = "") -> str:
    """A script with a resource_monitor; its hook has `engine` and `resource`."""
    hook = f"onnewresource = function(engine, resource)\n{body}\nend"
    return plugin(f"resource_monitor = {{ resource_guid = {guid}, {hook} }},\n{rest}")


def on_file_hash() -> str:
    """A script that records the SHA-256 of each file (`uri`), its length and whether it is a part (`contents`)."""
    return on_file(
        "T.async:schedule{ data = path, onexecute = function(p) "
        """local h = io.popen("sha256sum '" .. p .. "'") local r = h:read("*a") h:close() """
        "return r:match('^%x+') end, "
        "onresult = function(engine, p, sum) "
        f'engine:add_resource("{HASHES}", flowkey:id(), sum, length .. (is_partial and " part" or "")) end }}',
        rest="request_async_workers = 2",
    )


def write(folder: Path, text: str | bytes, name: str = "script.lua") -> Path:
    """Put a script into a file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class Collector:
    """A sink that keeps every record."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = False

    def write(self, record: Record) -> None:
        self.records.append(record)

    async def flush(self) -> None:
        """Nothing to bring away."""

    async def close(self) -> None:
        self.closed = True

    def of(self, kind: str) -> list[Any]:
        """The records of one kind, in order."""
        return [record for record in self.records if record.kind == kind]

    def logged(self, level: str = "INFO") -> list[str]:
        """The texts of the log lines of one level, in order."""
        return [record.text for record in self.of("log") if record.level == level]


async def run_capture(
    capture: Path, scripts: Iterable[str | Path] = (), config: Config | None = None
) -> tuple[Collector, EngineStats]:
    """Run a capture through an engine to the end: all records, and the last counts."""
    collector = Collector()
    async with Engine(scripts, config=config, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.run(Capture(capture))
    return collector, engine.stats


def run_alone(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on a loop of its own, which may leave no thread and break no callback."""
    broken: list[dict[str, Any]] = []
    with no_threads_left(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: broken.append(context))
        runner.run(main)
    assert broken == []


def assert_counts_close(stats: EngineStats, *, ended: bool = True) -> None:
    """What came in equals what was handled, dropped, failed and still waits; after the end nothing waits."""
    decode, http, tasks = stats.decode, stats.http, stats.tasks
    assert decode.packets == decode.decoded + decode.malformed + decode.undecoded
    assert http.files == http.files_complete + http.files_partial
    each = (tasks, *(plugin.tasks for plugin in stats.plugins))
    for one in each:
        done = one.completed + one.failed + one.rejected + one.abandoned + one.pending
        assert one.submitted == done
    events, messages = stats.events, stats.messages
    assert events.received == events.handled + events.dropped + events.failed + events.pending
    assert messages.posted == messages.delivered + messages.dropped + messages.failed + messages.pending
    if ended:
        assert (tasks.pending, events.pending, messages.pending) == (0, 0, 0)


def engine_threads() -> set[threading.Thread]:
    """The threads that engines started and that still run."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("offpath")}


def files_below(folder: Path) -> list[Path]:
    """The files in a folder, at any depth; none when the folder is gone."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir()) if folder.exists() else []
