"""What is public: the names of the package, and a sentence for each of them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for top in ("engine", "lua_api") for path in (ROOT / top).rglob("*.py"))

PUBLIC = [
    "Capture",
    "CaptureError",
    "CaptureLimits",
    "Config",
    "ConfigError",
    "Engine",
    "EngineError",
    "EngineStats",
    "Packed",
    "RequestError",
    "Script",
    "ScriptError",
    "ScriptLoadError",
    "Sink",
    "Subscription",
]

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_the_public_names_are_exactly_these() -> None:
    assert engine.__all__ == PUBLIC
    visible = {name for name, value in vars(engine).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert visible == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own(name: str) -> None:
    text = vars(getattr(engine, name)).get("__doc__")
    assert text
    assert not text.startswith(f"{name}(")  # what dataclasses write when nobody does


def test_the_package_file_holds_no_logic() -> None:
    tree = ast.parse((ROOT / "engine" / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        assert isinstance(node, ast.ImportFrom) or names == ["__all__"], ast.unparse(node)


def is_stub(node: Definition) -> bool:
    """Whether a function has no body, as those of a protocol that only name what is asked for."""
    return len(node.body) == 1 and ast.unparse(node.body[0]) == "..."


def public_definitions(path: Path) -> Iterator[tuple[str, Definition]]:
    """Public classes and functions of a module, and the public methods of the former."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                named = isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_")
                if named and not is_stub(method):
                    yield f"{node.name}.{method.name}", method


def test_the_definitions_were_found() -> None:
    assert sum(1 for path in MODULES for _ in public_definitions(path)) > 100


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_classes_and_functions_have_docstrings(path: Path) -> None:
    assert [name for name, node in public_definitions(path) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_that_holds_anything_says_what(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
