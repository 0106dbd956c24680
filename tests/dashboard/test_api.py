"""Questions over HTTP: that they answer as `offpath query` does, and as their description says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from engine.cli.app import app
from engine.cli.query import _QUESTIONS
from engine.dashboard.openapi import OTHER_PATHS, describe
from engine.dashboard.routes import MOST_ROWS, ROUTES
from engine.sinks.sqlite import SqliteSink
from engine.values.records import Resource
from tests.dashboard.asking import application
from tests.sinks.measured import key_of, records_of, start_of, window

EXAMPLES: dict[str, dict[str, Any]] = {
    "toppers": {"group": "Hosts", "meter": "total"},
    "series": {"group": "Hosts", "key": key_of(3), "meter": ["0", "Packets"]},
    "search": {"text": "index3*"},
}
"""What is required; the others need nothing."""

WORDS: dict[str, list[str]] = {
    "toppers": ["Hosts", "total"],
    "series": ["Hosts", key_of(3)],
    "search": ["index3*"],
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "x.db"
    sink = SqliteSink(path, source="test")
    for number in range(3):
        for record in records_of(number):
            sink.write(record)
        sink.write(Resource("{R}", "flow", "a.example", "1.2.3.4", "", start_of(number)))
        sink.write_window(window(number))
    sink.close_now()
    return path


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return json.loads(json.dumps(describe(version="1", needs_token=False)))  # type: ignore[no-any-return]


def test_the_description_is_openapi_3_1(description: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(description)
    assert description["openapi"] == "3.1.0"
    assert "security" not in description
    assert describe(version="1", needs_token=True)["security"] == [{"token": []}]


def test_there_is_a_route_for_each_question_of_the_command() -> None:
    assert {each.name for each in ROUTES} == set(_QUESTIONS)


async def test_what_is_described_is_what_is_there(description: dict[str, Any], database: Path) -> None:
    assert set(description["paths"]) == {each.path for each in ROUTES} | set(OTHER_PATHS)
    async with application(database) as (_, client):
        served = (await client.get("/openapi.json")).json()
        assert served["paths"] == description["paths"]
        for path in description["paths"]:
            if path != "/events":
                assert (await client.get(path)).status_code in (200, 400), path


@pytest.mark.parametrize("name", [each.name for each in ROUTES])
async def test_answers_are_those_of_the_command(database: Path, name: str) -> None:
    asked = {**EXAMPLES.get(name, {})}
    asked.pop("meter", None) if name == "series" else None
    async with application(database) as (_, client):
        answer = await client.get(f"/api/{name}", params=asked)
    told = CliRunner().invoke(app, ["query", str(database), name, *WORDS.get(name, []), "--format", "json"])
    assert answer.json() == {"rows": json.loads(told.stdout)}
    assert answer.json()["rows"]


@pytest.mark.parametrize("name", [each.name for each in ROUTES])
async def test_rows_have_the_columns_that_are_described(database: Path, description: dict[str, Any], name: str) -> None:
    content = description["paths"][f"/api/{name}"]["get"]["responses"]["200"]["content"]["application/json"]
    columns = content["schema"]["properties"]["rows"]["items"]["required"]
    async with application(database) as (_, client):
        rows = (await client.get(f"/api/{name}", params=EXAMPLES.get(name))).json()["rows"]
    assert rows
    for row in rows:
        assert set(columns) <= row.keys()


@pytest.mark.parametrize("name", [each.name for each in ROUTES])
async def test_parameters_are_what_is_described(database: Path, description: dict[str, Any], name: str) -> None:
    operation = description["paths"][f"/api/{name}"]["get"]
    wanted = EXAMPLES.get(name, {})
    async with application(database) as (_, client):

        async def refused(params: dict[str, Any], why: str) -> None:
            answer = await client.get(f"/api/{name}", params=params)
            assert answer.status_code == 400, params
            assert why in answer.json()["error"]

        await refused(wanted | {"surprise": "1"}, "no parameter 'surprise'")
        for each in operation["parameters"]:
            if each["required"]:
                rest = {key: value for key, value in wanted.items() if key != each["name"]}
                await refused(rest, f"{each['name']} is missing")
            if each["schema"]["type"] == "integer":
                assert each["schema"]["maximum"] == MOST_ROWS
                for bad in ("0", str(MOST_ROWS + 1), "-1", "many", "", "1.5", "٣"):
                    await refused(wanted | {each["name"]: bad}, each["name"])
                good = await client.get(f"/api/{name}", params=wanted | {each["name"]: 1})
                assert len(good.json()["rows"]) == 1
            elif each["schema"]["type"] == "string":
                await refused(wanted | {each["name"]: ["a", "b"]}, "is given 2 times")
                await refused(wanted | {each["name"]: "x" * 1001}, "must have 1 to 1000 characters")


async def test_times(database: Path) -> None:
    async with application(database) as (_, client):
        rows = (await client.get("/api/windows", params={"from": "-2m", "to": "-1m"})).json()["rows"]
        assert [each["number"] for each in rows] == [1]
        wrong = await client.get("/api/windows", params={"from": "tomorrow"})
        assert (wrong.status_code, wrong.json()["error"][:22]) == (400, "'tomorrow' is no time:")


async def test_what_is_not_there_is_named_with_what_is(database: Path) -> None:
    async with application(database) as (_, client):
        answer = await client.get("/api/toppers", params={"group": "Apps", "meter": "0"})
        assert answer.json() == {"error": "no counter group 'Apps', there are: Hosts"}


async def test_without_a_database(description: dict[str, Any]) -> None:
    async with application() as (_, client):
        for route in ROUTES:
            answer = await client.get(route.path, params=EXAMPLES.get(route.name))
            assert (answer.status_code, list(answer.json())) == (404, ["error"])


async def test_a_database_that_nothing_was_stored_in_yet(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "new.db", source="test")
    async with application(tmp_path / "new.db") as (_, client):
        assert (await client.get("/api/flows")).json() == {"rows": []}
    sink.close_now()


async def test_the_last_snapshot(database: Path) -> None:
    async with application(database) as (watch, client):
        answer: httpx.Response = await client.get("/api/now")
        assert answer.json() == json.loads(json.dumps(watch.now))
        assert answer.json()["state"] == "waiting"
