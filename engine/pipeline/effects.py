"""What hooks left in their outboxes becomes records, tasks and deliveries. Loop thread only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.capture.ramfs import Ramfs
from engine.offload import Task
from engine.pipeline.deliveries import Deliveries
from engine.pipeline.flowcounters import FlowBook, Flows
from engine.pipeline.held import ALERTS, DOCUMENTS, RESOURCES, ItemKind, alert_fields, document_fields
from engine.pipeline.records import RecordBus
from engine.pipeline.slowpath import SlowPath
from engine.plugins.plugin import Plugin
from engine.stream.counters import Counters, Run
from engine.values.flowkeys import endpoints
from engine.values.records import Alert, Document, Edge, FlowUpdate, KeyInfo, Resource
from engine.vm.state import text
from lua_api import Effect

_HOST_GROUP = "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}"
_PORT_GROUP = "{C51B48D4-7876-479E-B0D9-BD9EFF03CE2E}"
_PROTOCOL_GROUP = "{E89BCD56-30AD-40F5-B1C8-8B7683F440BD}"

_ATTRIBUTE = b"attribute:"
_INTEGERS = frozenset(
    ("sensor_id", "protocol_family", "sig_generator", "sig_rev", "event_id", "acknowledge_flag", "protocol")
)
"""Names in `Alert.extra` whose values are numbers."""


class Effects:
    """Applies the effects of plugins, in the order in which they arose."""

    def __init__(
        self,
        bus: RecordBus,
        counters: Counters,
        deliveries: Deliveries,
        ramfs: Callable[[], Ramfs],
        plugins: Sequence[Plugin],
        on_error: Callable[[Plugin, str, str, str], None],
        flows: Flows,
        slow: SlowPath,
        slice_seconds: float,
    ) -> None:
        """`on_error(plugin, hook, message, traceback)`; `plugins` is the live list of the engine."""
        self._bus = bus
        self._counters = counters
        self._deliveries = deliveries
        self._ramfs = ramfs
        self._plugins = plugins
        self._on_error = on_error
        self._slow = slow
        self._slice = slice_seconds / 2  # a task whose timer is due gets its turn after two of them
        self.flows = FlowBook(bus, counters, deliveries, plugins, flows)
        self.flows.sessions = slow.sessions
        slow.gather_from(self.gather_counters)
        self._extra: dict[str, str | int] = {}
        self.give_up: Callable[[Plugin, bytes], None] = lambda _plugin, _flow: None
        """Hears of connections that a plugin wants no more bytes of."""
        self.answered: Callable[[Plugin, int, bool, bytes], None] = lambda *_answer: None
        """Hears of promises that were settled."""
        self.called: Callable[[Plugin, int, str, bytes], None] = lambda *_call: None
        """Hears of calls of coroutine functions of the host."""
        self.alerts = 0
        self.resources = 0
        self._handlers: dict[int, Callable[..., None]] = {
            Effect.ERROR: self._error,
            Effect.COUNTERS: self._count,
            Effect.KEY_INFO: self._key_info,
            Effect.ALERT: self._alert,
            Effect.RESOURCE: self._resource,
            Effect.FLOW_UPDATE: self._flow_update,
            Effect.EDGE: self._edge,
            Effect.FLOW_EDGES: self._flow_edges,
            Effect.MESSAGE: self._message,
            Effect.DISABLE_REASSEMBLY: self._disable_reassembly,
            Effect.CODE: self._code,
            Effect.SCHEDULE: self._schedule,
            Effect.FILE_OPERATION: self._file_operation,
            Effect.REJECTED: self._rejected,
            Effect.SCHEDULE_PACK: self._schedule_pack,
            Effect.FLOW_COUNTER: self._flow_counter,
            Effect.RESET_FLOW_COUNTER: self._reset_flow_counter,
            Effect.ALERT_EXTRA: self._alert_extra,
            Effect.ANSWER: lambda plugin, *answer: self.answered(plugin, *answer),
            Effect.CALL: self._call,
            Effect.BROADCAST: self._broadcast,
        }

    def take(self, plugin: Plugin) -> None:
        """Empty a plugin's outbox."""
        if plugin.closed:
            return
        for code, values in plugin.take():
            self._handlers[code](plugin, *values)
        self._counters.work(self._slice)
        if plugin.queue is not None:
            plugin.queue.look_at_lane()

    async def gather_counters(self) -> None:
        """Have all plugins give what they counted: a window ends. Some of it may wait to be counted then.

        What they count from the first step on is of the next window, or of this one when there is very much of it.
        """
        plugins = tuple(self._plugins)
        for plugin in plugins:
            plugin.leave_counters()
        until = time.perf_counter() + self._slice
        for plugin in plugins:
            while plugin.cross_counters():
                self.take(plugin)
                if time.perf_counter() > until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + self._slice
            self.take(plugin)

    def _error(self, plugin: Plugin, hook: bytes, message: bytes, traceback: bytes) -> None:
        self._on_error(plugin, text(hook), text(message), text(traceback or b""))

    def _count(
        self, _plugin: Plugin, group: bytes, keys: bytes, lengths: bytes, updates: bytes, columns: bytes
    ) -> None:
        run = Run(text(group), keys, lengths, updates, columns)
        self._counters.put(run)
        self._slow.counted(run)

    def _key_info(self, _plugin: Plugin, group: bytes, key: bytes, name: bytes, value: bytes) -> None:
        info = KeyInfo(text(group), text(key), text(name), text(value))
        if info.name == "label":
            self._counters.label(info.group, info.key, info.value)
        self._bus.publish(info)

    def _alert(
        self,
        plugin: Plugin,
        time: float,
        group: bytes,
        flow: bytes,
        sigid: bytes,
        classification: bytes,
        priority: float,
        message: bytes,
        status: bytes,
    ) -> None:
        self.alerts += 1
        alert = Alert(
            group=text(group),
            flow=text(flow),
            sigid=text(sigid),
            classification=text(classification),
            priority=int(priority),
            message=text(message),
            status=text(status),
            script=plugin.script,
            time=time,
            extra=self._extra,
        )
        self._extra = {}
        self._publish(ALERTS, alert)
        self._deliveries.monitors(self._plugins, "onnewalert", alert.group, time, alert_fields(alert))

    def _resource(self, plugin: Plugin, time: float, group: bytes, flow: bytes, uri: bytes, contents: bytes) -> None:
        resource = Resource(text(group), text(flow), text(uri), text(contents), plugin.script, time)
        self.take_resource(resource, (flow, uri, contents))

    def take_resource(self, resource: Resource, raw: tuple[bytes, ...]) -> None:
        """Publish a resource and show it to monitors; `raw` is its flow, uri and contents."""
        self.resources += 1
        self._publish(RESOURCES, resource)
        self._deliveries.resource(self._plugins, resource, raw)

    def take_document(self, document: Document) -> None:
        """Publish a document and show it to monitors."""
        self._publish(DOCUMENTS, document)
        self._deliveries.monitors(self._plugins, "onnewfts", document.group, document.time, document_fields(document))

    def _publish(self, kind: ItemKind, record: Alert | Resource | Document) -> None:
        """Now, or when it is flushed, if monitors vote on it."""
        if not self._slow.held.hold(kind, record):
            self._bus.publish(record)

    def _flow_update(self, plugin: Plugin, time: float, flow: bytes, name: bytes, value: bytes) -> None:
        update = FlowUpdate(text(flow), text(name), text(value), plugin.script, time)
        self.flows.update(update, flow)
        if name.startswith(_ATTRIBUTE):
            self._deliveries.attribute(self._plugins, plugin, time, (flow, name.removeprefix(_ATTRIBUTE), value))

    def _flow_counter(
        self,
        _plugin: Plugin,
        time: float,
        place: float,
        flow: bytes,
        group: bytes,
        key: bytes,
        meter: float,
        direction: float,
    ) -> None:
        self.flows.add_counter(time, int(place), flow, (text(group), text(key), int(meter), int(direction)))

    def _reset_flow_counter(self, _plugin: Plugin, time: float, place: float, flow: bytes, group: bytes) -> None:
        self.flows.reset_counters(time, int(place), flow, text(group))

    def _alert_extra(self, _plugin: Plugin, packed: bytes) -> None:
        names_and_values = [text(each) for each in packed.split(b"\0")]
        for name, value in zip(names_and_values[::2], names_and_values[1::2], strict=False):
            self._extra[name] = int(value) if name in _INTEGERS else value

    def _edge(self, _plugin: Plugin, from_group: bytes, from_key: bytes, to_group: bytes, to_key: bytes) -> None:
        self._bus.publish(Edge(text(from_group), text(from_key), text(to_group), text(to_key)))

    def _flow_edges(self, _plugin: Plugin, flow: bytes, group: bytes, key: bytes) -> None:
        """Edges both ways between a vertex and both addresses, the port and the protocol of a flow (spec 3.1)."""
        ends = endpoints(text(flow))
        if ends is None:
            return
        vertex = (text(group), text(key))
        others = (
            (_HOST_GROUP, ends.a_ip),
            (_HOST_GROUP, ends.z_ip),
            (_PORT_GROUP, ends.z_port),
            (_PROTOCOL_GROUP, ends.protocol),
        )
        for other in others:
            self._bus.publish(Edge(*vertex, *other))
            self._bus.publish(Edge(*other, *vertex))

    def _message(self, _plugin: Plugin, side: bytes, addressed: bool, message_id: bytes, message: bytes) -> None:
        self._deliveries.message(self._plugins, side.decode(), addressed, message_id, message)

    def _broadcast(self, _plugin: Plugin, message_id: bytes, class_id: bytes, message: bytes) -> None:
        self._deliveries.broadcast(self._plugins, text(class_id), message_id, message)

    def _disable_reassembly(self, plugin: Plugin, flow: bytes) -> None:
        self.give_up(plugin, flow)

    def _call(self, plugin: Plugin, number: float, name: bytes, arguments: bytes) -> None:
        self.called(plugin, int(number), text(name), arguments)

    def _code(self, plugin: Plugin, code: int, bytecode: bytes) -> None:
        assert plugin.queue is not None
        plugin.queue.add_code(code, bytecode)

    def _schedule(
        self,
        plugin: Plugin,
        task_id: int,
        lease: int,
        wants: int,
        code: int,
        upvalues: bytes,
        data: bytes,
        timeout: float,
    ) -> None:
        self._submit(
            plugin,
            Task(
                task_id,
                lease,
                "schedule",
                wants=wants,
                code=code,
                upvalues=upvalues,
                data=data,
                timeout=timeout,
            ),
        )

    def _schedule_pack(self, plugin: Plugin, first_id: int, count: int, pack: bytes) -> None:
        self._submit(plugin, Task(first_id, 0, "pack", code=first_id, data=pack, size=count))

    def _file_operation(
        self, plugin: Plugin, task_id: int, lease: int, method: bytes, source: bytes, target: bytes, position: int
    ) -> None:
        task = Task(task_id, lease, method.decode(), target=_path(target), position=int(position))
        if task.method == "copybuffer":
            task.data = source
        elif source:
            task.source = _path(source)
        self._submit(plugin, task)

    def _submit(self, plugin: Plugin, task: Task) -> None:
        assert plugin.queue is not None
        if task.lease:
            self._ramfs().hold(task.lease)
        plugin.queue.submit(task)

    def _rejected(self, plugin: Plugin, count: Any) -> None:
        assert plugin.queue is not None
        plugin.queue.reject(int(count))


def _path(absolute: bytes) -> str:
    return os.path.normpath(os.fsdecode(absolute))  # pathlib would keep ".."
