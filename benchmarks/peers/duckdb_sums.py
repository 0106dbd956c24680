"""Sums by key with DuckDB: python duckdb_sums.py KEYS UPDATES; prints keys, total and seconds as JSON."""

from __future__ import annotations

import json
import sys
import time

import duckdb
import pyarrow


def main(keys: int, updates: int) -> None:
    """Group a table of all updates, which is in memory as Arrow before the time begins, on one thread."""
    names = [f"key-{number * 7919 % keys:08d}" for number in range(keys)]
    events = [(names[place % keys], float(place % keys + 1)) for place in range(updates)]
    updates_table = pyarrow.table({"key": [key for key, _ in events], "value": [value for _, value in events]})
    del events
    db = duckdb.connect()
    db.execute("SET threads = 1")
    db.register("updates", updates_table)
    began = time.perf_counter()
    sums = dict(db.execute("SELECT key, sum(value) FROM updates GROUP BY key").fetchall())
    seconds = time.perf_counter() - began
    print(json.dumps({"keys": len(sums), "total": sum(sums.values()), "seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
