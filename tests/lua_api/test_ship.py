"""Shipping functions between two states: what crosses by value, with its cycles and its shared cells, and code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lua_api.pair import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Pair]:
    """One pair for the properties, which make many calls."""
    pair = Pair()
    yield pair
    pair.close()


# ---- by value


@pytest.mark.parametrize("value", ["nil", "true", "false", "0", "-1.5", "2^53", "1/0", "''", "'a\\0\\255'", "'x\\n'"])
def test_scalars(pair: Pair, value: str) -> None:
    assert pair.call(f"local u = {value} return function() return u == {value}, type(u) end")[0] is True


def test_nan_and_negative_zero(pair: Pair) -> None:
    assert pair.call("local n, z = 0/0, -0 * 1 return function() return n ~= n, 1 / z < 0 end")[0] is True


def test_a_function_without_upvalues_needs_none(pair: Pair) -> None:
    code, upvalues = pair._pack(pair.sender.execute(b"return function(x) return x .. '!' end"))
    assert upvalues == b""
    assert pair._unpack(code, upvalues)(b"a") == b"a!"


def test_many_upvalues(pair: Pair) -> None:
    names = [f"v{i}" for i in range(59)]
    source = (
        f"local {', '.join(names)} = {', '.join(map(str, range(59)))} return function() return {' + '.join(names)} end"
    )
    assert pair.call(source) == sum(range(59))


def test_varargs_and_methods(pair: Pair) -> None:
    assert (
        pair.call(
            "local o = { n = 2 } function o:add(...) return self.n + select('#', ...) end "
            "return function(...) return o:add(...) end",
            1,
            2,
        )
        == 4
    )


def test_metatables_with_functions_that_have_upvalues(pair: Pair) -> None:
    source = """
    local base = 10
    local mt = { __index = function(t, k) return base .. k end, __call = function(self, x) return x + base end }
    mt.__metatable = "locked"
    local u = setmetatable({ own = 1 }, mt)
    return function() return u.own, u.other, u(5), getmetatable(u) end
    """
    assert pair.call(source) == (1, b"10other", 15, b"locked")


def test_newindex_does_not_run_while_a_table_is_filled(pair: Pair) -> None:
    source = "local u = setmetatable({}, { __newindex = function() error('ran') end }) rawset(u, 'a', 1) "
    assert pair.call(source + "return function() return u.a, (pcall(function() u.b = 1 end)) end") == (1, False)


def test_cycles_and_sharing(pair: Pair) -> None:
    source = """
    local a, b = {}, {}
    a.self, a.b, b.a, a[b], b[1], b[2] = a, b, a, "by table", a, a
    return function() return a.self == a, a.b.a == a, a[b] == "by table", b[1] == b[2], setmetatable(a, a) == a end
    """
    assert pair.call(source) == (True,) * 5


def test_recursive_functions(pair: Pair) -> None:
    source = "local function fact(n) return n < 2 and 1 or n * fact(n - 1) end return fact"
    assert pair.call(source, 10) == 3628800


def test_mutually_recursive_functions(pair: Pair) -> None:
    source = """
    local odd
    local function even(n) if n == 0 then return true end return odd(n - 1) end
    function odd(n) if n == 0 then return false end return even(n - 1) end
    return function(n) return even(n), odd(n) end
    """
    assert pair.call(source, 1001) == (False, True)


def test_a_cell_that_two_functions_share_stays_shared(pair: Pair) -> None:
    source = """
    local count, apart = 0, 0
    local function up() count = count + 1 end
    local function read() return count end
    local function other() apart = apart + 1 return apart end
    return function() up() up() count = count + 10 return read(), count, other() end
    """
    assert pair.call(source) == (12, 12, 1)


def test_what_arrives_is_a_copy(pair: Pair) -> None:
    source = (
        "local t, n = { 1 }, 0 held = function() return t[1] + n end return function() t[1] = 5 n = 9 return t[1] end"
    )
    assert pair.call(source) == 5
    assert pair.sender.execute(b"return held()") == 1


def test_each_shipping_has_upvalues_of_its_own(pair: Pair) -> None:
    pair.sender.execute(b"local n = 0 step = function() n = n + 1 return n end")
    first = pair.ship("return step")
    assert (first(), first()) == (1, 2)
    assert pair.ship("return step")() == 1, "the function made before is as new"


def test_changed_upvalues_cross_as_they_are_at_the_time(pair: Pair) -> None:
    pair.sender.execute(b"local n = 0 step = function() n = n + 1 return n end")
    pair.sender.execute(b"step()")
    assert pair.ship("return step")() == 2


def test_a_list_of_a_hundred_thousand_nodes(pair: Pair) -> None:
    source = """
    local list
    for i = 1, 100000 do list = { next = list, n = i } end
    return function() local sum, at = 0, list while at do sum, at = sum + at.n, at.next end return sum end
    """
    assert pair.call(source) == 5000050000


def test_a_path_through_a_long_list_is_shown_in_short(pair: Pair) -> None:
    source = "local list = { io.stdout } for i = 1, 5000 do list = { next = list } end "
    message = pair.call(
        source + "return function() local at = list while at.next do at = at.next end "
        "return select(2, pcall(function() return at[1].x end)) end"
    )
    assert b"upvalue 'list.next.next" in message
    assert b".next[1]' cannot cross" in message
    assert len(message) < 300


# ---- properties

_KEYS = st.one_of(
    st.text("abz_", max_size=3).map(str.encode), st.integers(-3, 9), st.booleans(), st.floats(allow_nan=False, width=16)
)
_SCALARS = st.one_of(_KEYS, st.none(), st.binary(max_size=5))

# Builds a graph of tables from a list of edges in either state; the function compares the two, node by node, from 1 on.
_GRAPH = """
local count, edges, metas = ...
local function build()
  local nodes = {}
  for at = 1, count do nodes[at] = { id = at } end
  for _, e in ipairs(edges) do
    local key = e.key_node and nodes[e.key_node] or e.key
    if key ~= nil then nodes[e.from][key] = e.to and nodes[e.to] or e.value end
  end
  for at, to in pairs(metas) do setmetatable(nodes[at], nodes[to]) end
  return nodes
end
local shipped = build()[1]
-- A walk in the order of a printed form, with nodes numbered as they are met.
local function walk(root)
  local seen, out, met, todo = {}, {}, 0, { root }
  seen[root] = 0
  while #todo > 0 do
    local node = table.remove(todo, 1)
    local lines = {}
    local function ref(v)
      if type(v) ~= "table" then return type(v) .. ":" .. tostring(v) end
      return "table:" .. tostring(rawget(v, "id"))
    end
    for k, v in next, node do
      lines[#lines + 1] = ref(k) .. "=" .. ref(v)
      for _, each in ipairs{ k, v } do
        if type(each) == "table" and not seen[each] then seen[each] = 0 todo[#todo + 1] = each end
      end
    end
    local meta = debug.getmetatable(node)
    if meta and not seen[meta] then seen[meta] = 0 todo[#todo + 1] = meta end
    table.sort(lines)
    out[#out + 1] = ref(node) .. "{" .. table.concat(lines, ",") .. "}" .. (meta and ref(meta) or "")
  end
  met = #out
  table.sort(out)
  return table.concat(out, ";"), met
end
return function() return walk(shipped) end
"""


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[dict[str, Any]], dict[int, int]]:
    """Number of nodes, edges (to a node or a scalar, keyed by a scalar or a node), metatables."""
    count = draw(st.integers(1, 8))
    nodes = st.integers(1, count)
    key = st.one_of(_KEYS.map(lambda k: {"key": k}), nodes.map(lambda n: {"key_node": n}))
    value = st.one_of(_SCALARS.map(lambda v: {"value": v}), nodes.map(lambda n: {"to": n}))
    edge = st.tuples(nodes, key, value).map(lambda e: {"from": e[0], **e[1], **e[2]})
    metas = draw(st.dictionaries(nodes, nodes, max_size=3))
    edges = draw(st.lists(edge, max_size=20))
    return count, [each for each in edges if each.get("key") != b"id"], metas


@given(graphs())
def test_any_graph_of_tables_arrives_the_same(shared_pair: Pair, graph: Any) -> None:
    count, edges, metas = graph
    pack_args = (count, shared_pair.sender.table(edges), shared_pair.sender.table(metas))
    local = shared_pair.sender.compile(_GRAPH.encode(), "graph.lua")(*pack_args)
    assert shared_pair.ship(_GRAPH, *pack_args)() == local()


# Functions over cells: each adds an amount to the cell it holds; cells are shared as given. Runs them in an order.
_CELLS = """
local holders, order = ...
local cells, functions = {}, {}
local function cell()
  local n = 0
  return function() return function(by) n = n + by return n end end
end
for at, number in ipairs(holders) do
  cells[number] = cells[number] or cell()
  functions[at] = cells[number]()
end
return function()
  local said = {}
  for _, at in ipairs(order) do said[#said + 1] = functions[at](at) end
  return table.concat(said, " ")
end
"""


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_cells_are_shared_exactly_as_before(shared_pair: Pair, holders: list[int], data: st.DataObject) -> None:
    order = data.draw(st.lists(st.integers(1, len(holders)), max_size=12))
    totals = dict.fromkeys(holders, 0)
    expected = []
    for at in order:
        totals[holders[at - 1]] += at
        expected.append(str(totals[holders[at - 1]]))
    lists = (shared_pair.sender.table(holders), shared_pair.sender.table(order))
    assert shared_pair.ship(_CELLS, *lists)().decode() == " ".join(expected)


# ---- code


def test_a_prototype_is_sent_once_however_many_closures(pair: Pair) -> None:
    pair.sender.execute(
        b"function make(n) local function inner() return n end return function() return inner() end end"
    )
    assert [pair.ship(f"return make({n})")() for n in range(20)] == list(range(20))
    assert len(pair.new_codes) == 2


def test_prototypes_that_look_alike_are_two(pair: Pair) -> None:
    assert pair.call("return function() return 1 end") == 1
    assert pair.call("return function() return 1 end") == 1
    assert len(pair.new_codes) == 2


def test_error_lines_of_shipped_code_are_those_of_the_script(pair: Pair) -> None:
    fn = pair.ship(
        "local u = 1\nlocal function inner()\n  error('here')\nend\nreturn function() return u, pcall(inner) end"
    )
    assert fn() == (1, False, b"script.lua:3: here")
