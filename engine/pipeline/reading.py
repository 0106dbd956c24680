"""A source is read through a pipeline, from its first packet until the work that it caused has settled."""

from __future__ import annotations

import math

from engine.offload import Gate
from engine.pipeline.findings import FOUND_KINDS
from engine.pipeline.pipeline import Pipeline
from engine.values.sources import Source, has_wall_time


class Reading:
    """One source after the other. Loop thread only."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def run(self, source: Source) -> None:
        """To its end; see `Engine.run`. The plugin of a script that is a source is loaded."""
        parts = self._pipeline
        reader, flows = parts.reader, parts.effects.flows
        reader.begin(source, parts.analysis.begin, lambda: parts.traffic.begin(windows=parts.windows.wanted))
        try:
            await parts.windows.finish()
            flows.begin()
            parts.slow.begin()
            parts.run_over.clear()
            parts.windows.follow_wall(has_wall_time(source))
            await reader.read(parts.clock.follow, self._breathe, flows.end, parts.windows.turn, self._run_on)
            await flows.flush(reader.flows(), self._breathe)
            await parts.settle()
            await parts.windows.finish()
            await parts.settle()
            await parts.bus.flush()
            if reader.failure is not None:
                raise reader.failure
        finally:
            reader.close_source()
            parts.take_outboxes()
            parts.clock.release()
            parts.windows.follow_wall(True)
            parts.slow.begin()
            parts.run_over.set()
            parts.work.wake()

    async def _breathe(self) -> None:
        """Between two batches of a source: effects, deliveries, sinks, and the loop's turn.

        How much is done here depends on counts, not on time, so that records come in the same order at every run. The
        source waits while some plugin's queue is half full or async work holds too many files, so that reading fast
        neither loses tasks nor fills the memory.
        """
        parts = self._pipeline
        parts.take_outboxes()
        await parts.traffic.relieve()
        if parts.reader.shows_flows and parts.slow.is_due(now := parts.clock.now()):
            await parts.slow.follow(now)
        await parts.work.do_some()
        await parts.bus.flush()
        await parts.let_loop_run()
        gate = parts.running("go on reading")
        while gate.half_full or self._holds_too_much(gate):
            await gate.progress()
            await parts.work.do_some()
            gate = parts.running("go on reading")

    def _run_on(self) -> tuple[float, bool]:
        """How far the next batch may go: to a second that a hook hears of, and past flows that nobody asks about.

        What plugins caused goes out when the batch ends, what the platform found at once: where both make records, or
        two plugins do, these are in the order of seconds.
        """
        parts = self._pipeline
        plugins = sum(bool(plugin.hooks) for plugin in parts.plugins)
        if plugins + any(parts.bus.wants(kind) for kind in FOUND_KINDS) > 1:
            return -math.inf, False
        return parts.slow.wanted_at(), not parts.effects.flows.wanted

    def _holds_too_much(self, gate: Gate) -> bool:
        files = self._pipeline.files
        return files is not None and gate.pending > 0 and files.held_bytes > self._pipeline.config.ramfs_bytes
