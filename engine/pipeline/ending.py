"""A pipeline ends: what is under way is finished or given up and counted, and nothing is left behind."""

from __future__ import annotations

import asyncio

import anyio

from engine.pipeline.pipeline import Pipeline


class Ending:
    """Stops a pipeline once. Loop thread only."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._hurried = False

    async def see_through(self, drain_seconds: float) -> asyncio.CancelledError | None:
        """Stop, whatever happens meanwhile; work that waits or is under way has `drain_seconds` to be done.

        A cancellation ends that wait, and is given back when all is over.
        """
        stop = asyncio.ensure_future(self._stop(drain_seconds))
        cancelled = None
        with anyio.CancelScope(shield=True):
            while not stop.done():
                try:
                    await asyncio.wait([stop])
                except asyncio.CancelledError as exc:  # asyncio's own, which the shield does not hold off
                    cancelled = exc
                    self._hurried = True
                    if self._pipeline.gate is not None:
                        self._pipeline.gate.abandon()
        stop.result()
        return cancelled

    async def _stop(self, drain_seconds: float) -> None:
        parts = self._pipeline
        gate = parts.gate
        assert gate is not None
        if drain_seconds:
            await self._finish_work(drain_seconds)
            if not self._hurried:
                await self._end_windows(drain_seconds)
                await self._finish_work(drain_seconds)
        parts.windows.abandon()  # also those that nobody had the time to wait for
        parts.windows.release()
        parts.stopping = True
        parts.work.stop()
        gate.abandon()
        await parts.run_over.wait()
        self._unload_plugins()
        await parts.store.shut()
        await gate.close()  # abandons the rest of what onunload asked for, which comes too late
        parts.door.drop_all()
        parts.deliveries.drop_all()
        parts.close()
        parts.discard_files()
        await parts.windows.finish()  # what was counted in onunload, and is held still
        parts.bus.publish(parts.summary())
        await parts.bus.close()

    def _unload_plugins(self) -> None:
        parts = self._pipeline
        for plugin in parts.plugins:
            plugin.onunload(parts.clock.now())
            plugin.flush_counters()
            parts.effects.take(plugin)
            assert plugin.queue is not None
            plugin.queue.detach(parts.completions.let_go)  # a worker may be as quick as to do what onunload asked for

    async def _end_windows(self, seconds: float) -> None:
        """Have the last window flushed, and those before it; past so many seconds they are given up."""
        with anyio.move_on_after(seconds):
            await self._pipeline.windows.finish()
        self._pipeline.windows.abandon()

    async def _finish_work(self, seconds: float) -> None:
        """Drain events, deliveries and tasks, which cause one another, until all are done or the time is over."""
        parts = self._pipeline
        gate, monotonic = parts.gate, parts.world.monotonic
        assert gate is not None
        until = monotonic() + seconds
        while not self._hurried and monotonic() < until:
            await parts.work.do_some()
            if parts.work.pending:
                continue
            if not await gate.drain(max(until - monotonic(), 0.0)):
                return
            if not (parts.work.pending or gate.pending):
                return
