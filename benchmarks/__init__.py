"""Measurements of the engine, run with `python -m benchmarks`. Nothing in `engine` or `lua_api` imports this."""
