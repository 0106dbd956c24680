"""The machine and the versions that numbers were measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from lupa.luajit21 import LuaRuntime


def describe() -> dict[str, str]:
    """What a reader needs to judge the numbers, by label, in the order to be shown."""
    return {
        "cpu": _cpu(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "load": f"{os.getloadavg()[0]:.2f} in the minute before",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "luajit": _luajit(),
        "lupa": version("lupa"),
        "uvloop": version("uvloop"),
    }


def lines(description: Mapping[str, str]) -> list[str]:
    """A description as aligned lines."""
    width = max(map(len, description))
    return [f"{label:<{width}}  {text}" for label, text in description.items()]


def stolen_seconds() -> float:
    """Processor time that the host gave to others while this machine wanted it, since it was started."""
    _, *ticks = (_read(Path("/proc/stat")).splitlines() or ["cpu"])[0].split()
    return int(ticks[7]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 7 else 0.0


def filesystem(path: Path) -> str:
    """The type of the file system that holds a path, or ``unknown``."""
    place, found, longest = path.resolve(), "unknown", -1
    for line in _read(Path("/proc/mounts")).splitlines():
        _, mount, kind, *_ = line.split(" ")
        where = Path(mount.replace(r"\040", " "))
        if place.is_relative_to(where) and len(where.parts) >= longest:
            found, longest = kind, len(where.parts)
    return found


def _cpu() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        label, _, text = line.partition(":")
        if label.strip() == "model name":
            return text.strip()
    return platform.processor() or "unknown"


def _luajit() -> str:
    name: str = LuaRuntime(register_eval=False, register_builtins=False).eval("jit.version")
    return name.removeprefix("LuaJIT ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
