"""Sums by key in a dict: python dict_sums.py KEYS UPDATES; prints keys, total and seconds as JSON."""

from __future__ import annotations

import json
import sys
import time


def main(keys: int, updates: int) -> None:
    """Count each update as it comes."""
    names = [f"key-{number * 7919 % keys:08d}" for number in range(keys)]
    events = [(names[place % keys], float(place % keys + 1)) for place in range(updates)]
    sums: dict[str, float] = {}
    began = time.perf_counter()
    for key, value in events:
        sums[key] = sums.get(key, 0.0) + value
    seconds = time.perf_counter() - began
    print(json.dumps({"keys": len(sums), "total": sum(sums.values()), "seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
