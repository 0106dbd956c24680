"""The page: nothing of it comes from elsewhere, and a browser shows what the engine says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.dashboard.assets import FILES
from engine.dashboard.serving import Serving
from tests.dashboard.asking import served
from tests.dashboard.browser import BROWSER, Page, browse
from tests.scripts import ALERTS, on_event, write
from tests.sinks.measured import window

OWN = sorted(path for path in FILES.rglob("*") if path.is_file())
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
NAMESPACES = {"http://www.w3.org/2000/svg"}
MALICE = "<img src=x onerror=document.title=1> </script><b>bold</b>"


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_file_names_a_place_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"/\*!?.*?\*/", "", text, count=1, flags=re.DOTALL) if path.parent.name == "uplot" else text
    assert set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"')]*""", text)) <= NAMESPACES
    assert "@import" not in text


def test_what_is_of_others_has_its_licence() -> None:
    assert (FILES / "uplot" / "LICENSE").read_text().startswith("The MIT License")
    assert "uPlot" in (FILES / "uplot" / "uPlot.iife.min.js").read_text()[:100]


def test_the_page_has_no_script_or_style_of_its_own_within() -> None:
    text = (FILES / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in each for each in re.findall(r"<script[^>]*>", text))


async def test_each_file_of_the_page_is_served() -> None:
    async with served() as (_, _, client):
        page = (await client.get("/")).text
        named = re.findall(r'(?:src|href)="(static/[^"]+)"', page)
        assert len(named) == 5
        for each in [*named, *(f"static/{path.relative_to(FILES)}" for path in OWN)]:
            answer = await client.get(each)
            assert answer.status_code == 200, each
            assert answer.headers["content-security-policy"]
        assert (await client.get("/static/../watch.py")).status_code == 404
        assert (await client.get("/static/%2e%2e/watch.py")).status_code == 404


async def in_browser(folder: Path, serving: Serving, look: Callable[[Page], Any], **how: Any) -> Any:
    """What `look` finds in a page that has heard of the engine; it runs on another thread."""

    def show() -> Any:
        with browse(folder) as page:
            page.open(serving.url_with_token, **how)
            page.wait("document.documentElement.dataset.ready")
            found = look(page)
            assert page.complaints() == []
            assert {url.split("/")[2] for url in page.requested()} == {serving.url.split("/")[2]}
            return found

    return await asyncio.to_thread(show)


def fits(page: Page) -> None:
    """No part of the page is wider than the window."""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0


@browser
async def test_an_engine_that_nothing_has_happened_to(tmp_path: Path) -> None:
    def look(page: Page) -> None:
        fits(page)
        assert page.text("#state") == "running"
        assert page.text("#alerts-empty") == "No alerts so far."
        assert page.text("#toppers-empty").startswith("No counters so far")
        assert page.text("#plugins-empty") == "No plugin runs."
        assert page.text("#losses-empty") == "Nothing."
        page.wait("document.querySelectorAll('#rate canvas').length")

    async with served() as (_, serving, _):
        await in_browser(tmp_path, serving, look)


@browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (375, True)], ids=["desk", "phone"])
async def test_a_page_shows_what_happens(tmp_path: Path, width: int, dark: bool) -> None:
    alert = f'engine:add_alert("{ALERTS}", nil, "sig", 2, event) T.async:schedule{{ onexecute = function() end }}'
    scripts = [
        write(tmp_path, on_event(alert), "alert.lua"),
        write(tmp_path, on_event('error("wrong " .. event)'), "wrong.lua"),
    ]
    loop = asyncio.get_running_loop()

    def look(page: Page) -> tuple[str, str]:
        page.wait("document.querySelector('#alerts li')")
        assert MALICE in page.text("#alerts")
        assert page.evaluate("document.querySelectorAll('#alerts img, #alerts b').length") == 0
        assert page.text("#source") == "capture.pcap"
        asyncio.run_coroutine_threadsafe(happen(engine), loop).result(20)
        page.wait("document.querySelector('#alerts').innerText.includes('another')")
        page.wait("document.querySelector('#logs').innerText.includes('wrong another')")
        page.wait("document.querySelectorAll('#toppers li').length == 3")
        assert "03:00:00" in page.text("#window")
        page.wait("document.querySelector('#plugins').innerText.includes('alert.lua')")
        page.wait("document.querySelector('#queue canvas')")
        fits(page)
        page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
        return (
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate("getComputedStyle(document.querySelector('#tiles')).gridTemplateColumns.split(' ').length"),
        )

    async def happen(engine: Engine) -> None:
        await engine.emit("x", "another")
        await engine.flush(window(0))

    async with served(scripts, title="capture.pcap") as (engine, serving, _):
        await engine.emit("x", MALICE)
        colour, columns = await in_browser(tmp_path, serving, look, width=width, dark=dark)
    assert (colour == "rgb(15, 18, 22)") is dark
    assert columns == (2 if width == 375 else 8)


@browser
async def test_a_token_in_the_address_opens_the_page_and_leaves_it(tmp_path: Path) -> None:
    async with served(token="secret") as (_, serving, _):
        assert await in_browser(tmp_path, serving, lambda page: page.evaluate("location.href")) == serving.url


@browser
async def test_a_page_says_that_the_server_is_gone(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()

    def show(url: str) -> None:
        with browse(tmp_path) as page:
            page.open(url)
            page.wait("document.documentElement.dataset.ready")
            loop.call_soon_threadsafe(gone.set)
            page.wait("document.querySelector('#state').innerText == 'no connection'")

    async with served() as (_, serving, _):
        showing = asyncio.create_task(asyncio.to_thread(show, serving.url))
        await asyncio.wait([showing, asyncio.ensure_future(gone.wait())], return_when=asyncio.FIRST_COMPLETED)
    await showing
    assert gone.is_set()
