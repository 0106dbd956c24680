"""What must be so of the counts of an engine that has ended."""

from __future__ import annotations

from collections.abc import Iterator

from engine.values.stats import AsyncStats, EngineStats


def broken_invariants(stats: EngineStats) -> tuple[str, ...]:
    """What does not add up, in words; nothing when all is well."""
    return tuple(_broken(stats))


def _broken(stats: EngineStats) -> Iterator[str]:
    decode, events, messages = stats.decode, stats.events, stats.messages
    if decode.packets != decode.decoded + decode.malformed + decode.undecoded:
        yield f"packets in and out differ: {decode}"
    yield from _broken_tasks("all plugins", stats.tasks)
    for plugin in stats.plugins:
        yield from _broken_tasks(f"{plugin.script} {plugin.block}".rstrip(), plugin.tasks)
    if events.received != events.handled + events.dropped + events.failed + events.pending or events.pending:
        yield f"events in and out differ: {events}"
    posted = messages.delivered + messages.dropped + messages.failed + messages.pending
    if messages.posted != posted or messages.pending:
        yield f"messages in and out differ: {messages}"


def _broken_tasks(whose: str, tasks: AsyncStats) -> Iterator[str]:
    ended = tasks.completed + tasks.failed + tasks.rejected + tasks.abandoned
    if tasks.submitted != ended or tasks.pending:
        yield f"async tasks of {whose} in and out differ: {tasks.counts}"
