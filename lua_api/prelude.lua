-- Builds T (spec 4) and what belongs to it, the same for hooks and for workers. `T.async` is added by whoever has one.

local host = require("offpath.host")

local guids = require("offpath.guids")

local M = {}

-- T belongs to the script, which may write into it; what it is built from does not.
local function copy(from)
  local to = {}
  for key, value in pairs(from) do to[key] = value end
  return to
end

-- Metatables of API objects: what may cross to a worker by value, and why the others may not.
local function classify_objects()
  local buffer = require("offpath.buffer").from_string("")
  getmetatable(buffer).__opaque = "a Buffer is only valid during its hook, take buffer:tostring()"
  return { FlowID = getmetatable(require("offpath.flowid").from_key("")) }
end

-- `settings`: contextid, probeid, probeversion, context_name, args, side, instanceid, homenets, config, configfile,
-- domain_configfile; on the backend also groups, by the names of the members of T. `effects` has what T.host needs to leave
-- effects; workers have none. Returns T and the names that ship.lua needs.
function M.build(settings, effects)
  local T = {
    contextid = settings.contextid,
    execution_contextid = settings.contextid,
    probeid = settings.probeid,
    probeversion = settings.probeversion,
    context_name = settings.context_name,
    args = settings.args,
    enginetype = settings.side,
    K = require("offpath.constants"),
    util = copy(require("offpath.util")),
    re2 = require("offpath.re2").new,
    ac = require("offpath.ac").new,
  }
  T.util.ac = T.ac
  if settings.side == "backend" then
    T.backend_engineid = settings.instanceid
    local groups = settings.groups or {}
    for _, kind in ipairs({ "counter", "alert", "fts", "resource", "session" }) do
      T[kind .. "groups"] = copy(groups[kind .. "groups"] or guids[kind] or {})
    end
  end
  if host.sim_clock then T.sim = require("offpath.sim").common() end
  T.host, T.env = require("offpath.hostinfo").build(settings, effects)
  for name, logger in pairs(require("offpath.logging").build(host.log)) do T[name] = logger end
  return T, require("offpath.names").build(T, classify_objects())
end

-- Where a script's `require` looks: its own directory, the other script directories, then what was there before.
function M.set_path(directory, roots)
  local places = { directory .. "/?.lua" }
  for _, root in ipairs(roots) do places[#places + 1] = root .. "/?.lua" end
  package.path = table.concat(places, ";") .. ";" .. package.path
end

return M
