"""Who may ask: the name it is asked under, the token, and what browsers are told about the answers. One ASGI layer."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing but what this server itself sends."""

_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_PAGE: Final = "/"


class Guard:
    """Wraps an application.

    - On loopback, a request must name this machine in `Host`: a name of somebody else that was made to lead here
      (DNS rebinding) has no business. Elsewhere the token does this, as no other name has the cookie.
    - With a token, each request carries it as ``Authorization: Bearer``, or as the cookie that ``/?token=`` sets.
    - What a page of another site asks for in the background is refused.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Iterable[str] | None, cookie: str) -> None:
        """`hosts` are names to be asked under, None for any; those of loopback are always among them."""
        self._app = app
        self._token = token
        self._hosts = None if hosts is None else frozenset(each.casefold() for each in hosts)
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("only GET and HEAD are answered\n", 405, {"allow": "GET, HEAD"})
        if self._hosts is not None and not self._is_ours(headers.get("host", "")):
            return PlainTextResponse("this server is asked under a name that is not its own\n", 421)
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("pages of other sites are not answered\n", 403)
        if self._token is None:
            return None
        return self._unknown(scope, headers, self._token)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).casefold()
        if self._hosts is not None and name in self._hosts:
            return True
        try:
            return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    def _unknown(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        """None for who has the token; what to answer anyone else. Who brings it to the page gets the cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() == "bearer" and _same(given.strip(), token):
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        brought = [value for name, value in asked if name == "token"]
        if scope["path"] == _PAGE and brought and _same(brought[0], token):
            rest = urlencode([each for each in asked if each[0] != "token"])
            answer = RedirectResponse(f"{_PAGE}?{rest}" if rest else _PAGE, 303)
            answer.set_cookie(self._cookie, _cookie_of(token), path="/", httponly=True, samesite="lax")
            return answer
        cookies = cookie_parser(headers.get("cookie", ""))
        if _same(cookies.get(self._cookie, ""), _cookie_of(token)):
            return None
        return PlainTextResponse(
            "a token is needed: open the address with ?token=..., or send the header Authorization: Bearer ...\n",
            401,
            {"www-authenticate": 'Bearer realm="offpath"'},
        )


def _cookie_of(token: str) -> str:
    """What the cookie holds: proof of the token, which is not the token."""
    return hmac.new(token.encode("utf-8", "surrogateescape"), b"offpath page", hashlib.sha256).hexdigest()


def _same(given: str, wanted: str) -> bool:
    """Takes as long for a wrong text as for another wrong text."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode("utf-8", "surrogateescape"))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
