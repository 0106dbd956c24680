"""Who may ask: names, tokens, cookies, and what browsers are told."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from engine.dashboard.guard import POLICY, Guard

TOKEN = "a-token~=;,&"
CROSS = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


def ask(*, token: str | None = None, loopback: bool = True, base: str = "http://localhost:8000") -> httpx.AsyncClient:
    guard = Guard(
        PlainTextResponse("inside"), token=token, hosts=("127.0.0.1",) if loopback else None, cookie="offpath_8000"
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url=base)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("127.1.2.3", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
async def test_on_loopback_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    async with ask() as client:
        assert (await client.get("/", headers={"host": host})).status_code == status


async def test_elsewhere_any_name_will_do() -> None:
    async with ask(loopback=False, token=TOKEN) as client:
        bearer = f"Bearer {TOKEN}"
        assert (await client.get("/", headers={"host": "lab.example", "authorization": bearer})).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with ask() as client:
        answer = await client.request(method, "/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_pages_of_other_sites_get_nothing_but_may_link() -> None:
    async with ask() as client:
        assert (await client.get("/events", headers=CROSS)).status_code == 403
        assert (await client.get("/", headers=CROSS | {"sec-fetch-mode": "navigate"})).status_code == 200
        assert (await client.get("/", headers=CROSS | {"sec-fetch-site": "same-origin"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/events", "/api/now", "/static/page.js", "/none"])
async def test_without_the_token_nothing_is_answered(path: str) -> None:
    async with ask(token=TOKEN) as client:
        answer = await client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "inside" not in answer.text


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
    ],
)
async def test_the_header(given: str, status: int) -> None:
    async with ask(token=TOKEN) as client:
        assert (await client.get("/metrics", headers={"authorization": given})).status_code == status


async def test_the_page_takes_the_token_once_and_then_the_cookie() -> None:
    async with ask(token=TOKEN) as client:
        brought = await client.get("/", params={"token": TOKEN, "x": "1"})
        assert (brought.status_code, brought.headers["location"]) == (303, "/?x=1")
        cookie = brought.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert TOKEN not in cookie
        assert (await client.get("/events")).status_code == 200  # the client has the cookie now
    async with ask(token=TOKEN) as client:
        assert (await client.get("/", params={"token": "wrong"})).status_code == 401
        assert (await client.get("/events", params={"token": TOKEN})).status_code == 401


async def test_the_cookie_is_no_token_and_that_of_another_token_is_worth_nothing() -> None:
    async with ask(token=TOKEN) as client:
        await client.get("/", params={"token": TOKEN})
        value = client.cookies["offpath_8000"]
    async with ask(token="another") as client:
        client.cookies.set("offpath_8000", value, domain="localhost")
        assert (await client.get("/")).status_code == 401
    async with ask(token=TOKEN) as client:
        assert (await client.get("/", headers={"authorization": f"Bearer {value}"})).status_code == 401


async def test_what_a_browser_may_do_with_an_answer() -> None:
    async with ask() as client:
        headers = (await client.get("/")).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
