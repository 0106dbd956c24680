"""A service in miniature: it emits an event per order, and prints the alerts that the plugin raises.

python scripts/orders_service.py
"""

import asyncio
from pathlib import Path

from engine import Engine

ORDERS = [("orders.created", 7, 19.9), ("orders.created", 8, 2400.0), ("orders.paid", 7, 19.9)]


async def main() -> None:
    """Run three orders through the plugin."""
    async with Engine(scripts=[Path(__file__).with_name("orders.lua")]) as engine:
        alerts = engine.subscribe("alert")
        for topic, number, total in ORDERS:
            await engine.emit(topic, {"id": number, "total": total})
    async for alert in alerts:
        print(f"alert: {alert.message}")  # noqa: T201
    print(f"{engine.stats.events.handled} events handled, {engine.stats.tasks.completed} journal lines written")  # noqa: T201


asyncio.run(main())
