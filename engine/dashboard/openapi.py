"""The description of the API, as OpenAPI 3.1, made from the table of routes. Pure."""

from __future__ import annotations

from typing import Any, Final

from engine.dashboard.routes import ROUTES, Param, Route

_TIMES: Final = frozenset({"start", "end", "time"})
_OTHERS: Final = {
    "/metrics": ("Counts, queues and times for Prometheus", {"200": ("Text format 0.0.4", "text/plain")}),
    "/healthz": (
        "Whether the loop turns and the source is read",
        {"200": ("It does", "application/json"), "503": ("It does not; with reasons", "application/json")},
    ),
    "/events": (
        "hello, then tick each second, notes (alerts, script errors) and window, as they come",
        {"200": ("Server-sent events, JSON each", "text/event-stream"), "503": ("Too many listen", "text/plain")},
    ),
    "/api/now": ("The last snapshot, as in tick", {"200": ("A snapshot", "application/json")}),
}
OTHER_PATHS: Final = tuple(_OTHERS)
"""What is answered beside the table of questions, and takes no parameters."""


def describe(*, version: str, needs_token: bool) -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {path: {"get": _plain(path)} for path in _OTHERS}
    paths |= {each.path: {"get": _operation(each)} for each in ROUTES}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Offpath",
            "version": version or "0",
            "description": "A running engine: metrics, health, and the database that it writes. Read-only.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                }
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    if needs_token:
        document["security"] = [{"token": []}]
    return document


def _plain(path: str) -> dict[str, Any]:
    summary, answers = _OTHERS[path]
    responses = {code: {"description": said, "content": {kind: {}}} for code, (said, kind) in answers.items()}
    return {"operationId": path.strip("/").replace("/", "_"), "summary": summary, "responses": responses}


def _operation(route: Route) -> dict[str, Any]:
    return {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [_parameter(each) for each in route.params],
        "responses": {
            "200": {"description": "The rows", "content": {"application/json": {"schema": _answer(route)}}},
            "400": _error("Something is asked for that is not there, or can't be understood"),
            "404": _error("No database is being written"),
            "503": _error("Too many questions wait, or this one took too long"),
        },
    }


def _parameter(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": "query",
        "description": param.description,
        "required": param.required,
        "schema": param.schema(),
    }


def _answer(route: Route) -> dict[str, Any]:
    properties = {name: {"type": "number"} if name in _TIMES else {} for name in route.columns}
    row = {"type": "object", "required": list(route.columns), "properties": properties}
    return {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row}}}


def _error(said: str) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
