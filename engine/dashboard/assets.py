"""The files of the page, read once: no thread, no path of the machine, nothing but what is in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.responses import PlainTextResponse, Response

FILES: Final = Path(__file__).parent / "static"
PAGE: Final = "index.html"

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def read_assets() -> dict[str, Response]:
    """An answer for each file, by its path within the folder."""
    return {
        path.relative_to(FILES).as_posix(): Response(
            path.read_bytes(), media_type=_TYPES.get(path.suffix, "text/plain")
        )
        for path in FILES.rglob("*")
        if path.is_file()
    }


def not_there() -> Response:
    """For any other path."""
    return PlainTextResponse("there is no such file\n", 404)
