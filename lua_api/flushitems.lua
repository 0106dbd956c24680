-- Runs hooks of alert, resource, document and session monitors over many items in one crossing (spec 2.5 to 2.9). Items come as a
-- flat run of fields; what a hook changes of one goes back to the host as place, name and value.

local ffi = require("ffi")
local alert = require("offpath.alert")
local document = require("offpath.document")
local effects = require("offpath.effects")
local failure = require("offpath.failure")
local resource = require("offpath.resource")
local sessionflow = require("offpath.sessionflow")
local now = require("offpath.monotonic").now

local cast, gmatch, select, tonumber, unpack, xpcall = ffi.cast, string.gmatch, select, tonumber, unpack, xpcall
local handler = failure.handler
local bytes_t = ffi.typeof("uint8_t *")

local M = {}

-- The Alert of one that the host gives: `extra` is names and values with a NUL behind each.
function M.alert(flow, sigid, classification, priority, message, status, time, extra)
  local fields = {}
  for name, value in gmatch(extra, "([^%z]*)%z([^%z]*)%z") do fields[name] = value end
  fields.destination_ip, fields.destination_port = fields.dest_ip, fields.dest_port
  fields.ack_flag = fields.acknowledge_flag
  fields.flow, fields.time = flow ~= "" and flow or nil, time
  fields.sigid, fields.classification, fields.priority = sigid, classification, priority
  fields.message, fields.status = message, status
  return alert.new(fields)
end

function M.resource(flow, uri, contents, time)
  return resource.new({ flow = flow ~= "" and flow or nil, uri = uri, contents = contents, time = time })
end

function M.document(flow, id, text, time)
  return document.new({ flow = flow ~= "" and flow or nil, id = id, text = text, time = time })
end

function M.flow(id, first, last, state, a_bytes, z_bytes, a_packets, z_packets, a_payload, z_payload, tags, rtt, again)
  return sessionflow.new({
    id = id, first = first, last = last, state = state, a_bytes = a_bytes, z_bytes = z_bytes, a_packets = a_packets,
    z_packets = z_packets, a_payload = a_payload, z_payload = z_payload, tags = tags, setup_rtt = rtt,
    retransmissions = again,
  })
end

-- Fields of each item, and those of them that hooks may change.
local KINDS = {
  alert_monitor = { make = M.alert, width = 8, mutable = { "priority", "message", "extra_message" } },
  resource_monitor = { make = M.resource, width = 4, mutable = { "uri", "contents" } },
  fts_monitor = { make = M.document, width = 4, mutable = {} },
  sg_monitor = { make = M.flow, width = 13, mutable = { "tags" } },
  flowtracker = { make = M.flow, width = 13, mutable = {} },
}

-- Returns run(filter, hook, time, seconds, votes, count, ...), like that of flushkeys.lua but for items given by their fields.
-- Behind the three numbers follow place, name and value of each change. And metrics(time, seconds, count, ...) of a flow tracker:
-- how many flows it has come to, the same again, and their metrics.
function M.start(context, block, block_name, complain)
  local kind = KINDS[block_name]
  local function failed(name, what) context.put(effects.ERROR, 3, name, failure.parts(what)) end

  local function note_changes(changes, at, before, fields)
    for number = 1, #kind.mutable do
      local name = kind.mutable[number]
      if fields[name] ~= before[number] then
        local n = #changes
        changes[n + 1], changes[n + 2], changes[n + 3] = at, name, fields[name]
      end
    end
  end

  local function run(filter, hook, time, seconds, votes, count, ...)
    local engine, make, width, mutable = context.engine, kind.make, kind.width, kind.mutable
    local filtering, flushing = filter and block[filter], hook and block[hook]
    local given, changes, before = { ... }, {}, {}
    votes, context.time = cast(bytes_t, votes), time
    local asked, called, at, until_ = 0, 0, 0, now() + seconds
    while at < count do
      local item = make(unpack(given, at * width + 1, (at + 1) * width))
      for number = 1, #mutable do before[number] = item.fields[mutable[number]] end
      if filtering then
        asked = asked + 1
        local ok, keep = xpcall(filtering, handler, engine, item)
        if not ok then failed(filter, keep) elseif keep ~= false and keep ~= true then complain(filter) end
        if not ok or keep ~= false then votes[at] = 1 end
      end
      if flushing and votes[at] ~= 0 then
        called = called + 1
        local ok, wrong = xpcall(flushing, handler, engine, item)
        if not ok then failed(hook, wrong) end
      end
      note_changes(changes, at, before, item.fields)
      at = at + 1
      if now() > until_ then break end
    end
    return asked, called, at, unpack(changes)
  end

  local function metrics(time, seconds, count, ...)
    local engine, make, width = context.engine, kind.make, kind.width
    local given, found, until_ = { ... }, {}, now() + seconds
    context.time = time
    local at = 0
    while at < count do
      local ok, metric = xpcall(block.getmetric, handler, engine, make(unpack(given, at * width + 1, (at + 1) * width)))
      if not ok then failed("getmetric", metric) end
      at = at + 1
      found[at] = ok and tonumber(metric) or 0
      if now() > until_ then break end
    end
    return at, at, unpack(found)
  end

  return run, metrics
end

return M
