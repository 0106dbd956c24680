"""Sums by key with streamz: python streamz_sums.py KEYS UPDATES; prints keys, total and seconds as JSON."""

from __future__ import annotations

import json
import sys
import time

from streamz import Stream


def main(keys: int, updates: int) -> None:
    """Emit each update into a stream that accumulates them."""
    names = [f"key-{number * 7919 % keys:08d}" for number in range(keys)]
    events = [(names[place % keys], float(place % keys + 1)) for place in range(updates)]

    def add(state: dict[str, float], event: tuple[str, float]) -> dict[str, float]:
        key, value = event
        state[key] = state.get(key, 0.0) + value
        return state

    source = Stream()
    node = source.accumulate(add, start={})
    began = time.perf_counter()
    for event in events:
        source.emit(event)
    seconds = time.perf_counter() - began
    sums = node.state
    print(json.dumps({"keys": len(sums), "total": sum(sums.values()), "seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
