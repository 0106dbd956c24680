"""The floors of the design: an upper one may import a lower one, never the reverse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    "values",
    "lua_api",
    "vm",
    "offload",
    "capture",
    "stream",
    "plugins",
    "pipeline",
    "sinks",
    "dashboard",
    "simulation",
    "cli",
)
"""From the ground up."""

RANKS = {name: rank for rank, name in enumerate(FLOORS)}
MODULES = sorted(path for top in ("engine", "lua_api") for path in (ROOT / top).rglob("*.py"))
LUA_MODULES = sorted(path for top in ("engine", "lua_api") for path in (ROOT / top).rglob("*.lua"))


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> str | None:
    """The floor that a module belongs to; None for what is not ours. `engine` itself is the public pipeline."""
    first, *rest = module.split(".")
    if first == "lua_api":
        return "lua_api"
    if first != "engine":
        return None
    if rest == ["__main__"]:
        return "cli"
    return rest[0] if rest and rest[0] in RANKS else "pipeline"


@cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Every module that a file imports, anywhere in it, with the line."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
            yield base, node.lineno
            # "from engine import pipeline" imports the module as well as "import engine.pipeline" does.
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names if base in ("engine", "lua_api"))


def importers_of(package: str) -> set[str]:
    """The floors that import a package."""
    return {
        str(floor_of(name_of(path)))
        for path in MODULES
        for module, _ in imports(path)
        if module.split(".")[0] == package
    }


def test_the_sources_were_found() -> None:
    assert {floor_of(name_of(path)) for path in MODULES} == set(FLOORS)


def test_every_folder_of_the_engine_is_a_floor() -> None:
    folders = {path.parent.relative_to(ROOT / "engine").parts[:1] for path in MODULES if "engine" in path.parts}
    assert {folder[0] for folder in folders if folder} <= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_no_upper_floor(path: Path) -> None:
    own = str(floor_of(name_of(path)))
    wrong = [
        f"{path.name}:{line} imports {module}"
        for module, line in imports(path)
        if (floor := floor_of(module)) is not None and RANKS[floor] > RANKS[own]
    ]
    assert wrong == []


def test_the_edges_do_not_lean_on_each_other() -> None:
    sinks = [path for path in MODULES if floor_of(name_of(path)) == "sinks"]
    assert sinks
    assert not [module for path in sinks for module, _ in imports(path) if floor_of(module) == "cli"]


def test_starlette_and_uvicorn_are_left_to_the_dashboard() -> None:
    assert importers_of("starlette") == importers_of("uvicorn") == {"dashboard"}


def test_lua_api_never_imports_the_engine() -> None:
    files = [path for path in MODULES if floor_of(name_of(path)) == "lua_api"]
    assert len(files) > 3
    assert not [module for path in files for module, _ in imports(path) if module.split(".")[0] == "engine"]


def test_only_vm_imports_lupa() -> None:
    assert importers_of("lupa") == {"vm"}


@pytest.mark.parametrize("package", ["typer", "rich", "click"])
def test_only_the_cli_draws_on_a_terminal(package: str) -> None:
    assert importers_of(package) <= {"cli"}


@pytest.mark.parametrize("package", ["asyncio", "anyio", "aiofiles", "lupa", "lua_api"])
def test_values_know_neither_lua_nor_asyncio(package: str) -> None:
    assert "values" not in importers_of(package)


def test_uvloop_is_left_to_the_edges() -> None:
    assert importers_of("uvloop") <= {"cli"}


@pytest.mark.parametrize("path", LUA_MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lua_modules_require_their_own_floor_or_a_lower_one(path: Path) -> None:
    floor = str(floor_of(name_of(path)))
    prefixes = {"lua_api": {"offpath"}, "vm": set(), "offload": {"offpath"}, "capture": {"capture", "offpath"}}[floor]
    builtin = {"ffi", "bit", "jit", "jit.opt", "jit.util", "string.buffer", "table.new", "table.clear"}
    script_modules = {"JSON", "debugger", "lsqlite3"} if floor == "lua_api" else set()
    text = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
    required = re.findall(r"""require\s*\(?\s*["']([^"']+)["']""", text)
    strangers = [name for name in required if name.split(".")[0] not in prefixes]
    assert set(strangers) <= builtin | script_modules
