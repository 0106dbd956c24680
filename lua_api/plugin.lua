-- A plugin's state: loads a script, describes it to the host, and runs the hooks of one of its blocks.
--
-- Everything the host calls is in the table that `start` returns. No error of a script comes out of these functions: it is
-- put into the outbox (or returned, while loading) as message and traceback.

local host = require("offpath.host")
local effects = require("offpath.effects")
local failure = require("offpath.failure")
local plain = require("offpath.plain")
local prelude = require("offpath.prelude")
local outbox = require("offpath.outbox")
local engines = require("offpath.engine")
local async = require("offpath.async")
local ship = require("offpath.ship")
local adapters = require("offpath.hooks")
local events = require("offpath.events")
local packetblock = require("offpath.packetblock")
local protocols = require("offpath.protocols")
local declared = require("offpath.declared")
local garbage = require("offpath.garbage")
local storage = require("offpath.storage")
local flowkey = require("offpath.flowkey")
local promises = require("offpath.promises")
local inputfilter = require("offpath.inputfilter")
local flushkeys = require("offpath.flushkeys")
local flushitems = require("offpath.flushitems")
local JSON = require("JSON")

local xpcall, type, tostring = xpcall, type, tostring

local M = {}

local LEVELS = { ERROR = 4, WARN = 5, INFO = 7 }

local SCALAR = { string = true, number = true, boolean = true }

-- A script's value as the host may judge it: { kind = type, value = scalar or array of strings }.
local function shape(value)
  local kind = type(value)
  if kind == "number" and (value ~= value or value - value ~= 0) then return { kind = kind } end -- JSON has no such number
  if SCALAR[kind] then return { kind = kind, value = value } end
  if kind ~= "table" then return { kind = kind } end
  local items = {}
  for at, item in ipairs(value) do
    if type(item) ~= "string" then return { kind = kind, mixed = true } end
    items[at] = item
  end
  return { kind = kind, value = items }
end

local function shapes(value)
  local result = {}
  for key, item in pairs(value) do
    if type(key) == "string" then result[key] = shape(item) end
  end
  return result
end

-- Makes the host's end of a plugin state. `settings` as in prelude.lua, with `queue_limit`.
function M.start(settings)
  garbage.tune()
  local box = outbox.new()
  local context = {
    put = box.put,
    log = function(level, line) host.log(LEVELS[level], line) end,
    side = settings.side,
    instanceid = settings.instanceid,
    probeid = settings.probeid,
    time = 0,
    lease = 0,
  }
  local names, flush_engine, counters, completion
  local T_of_host
  T_of_host, names = prelude.build(settings, {
    createkey = function(guid, key, label) context.engine:update_key_info(guid, key, label) end,
    broadcast = function(id, class, message) box.put(effects.BROADCAST, 3, id, class, message) end,
  })
  T = T_of_host -- a script may put another table in its place
  local pack = ship.packer(names, function(id, bytecode) completion.put_code(id, bytecode) end)
  context.engine, flush_engine, counters = engines.new(context, settings.meter_types or {})
  T_of_host.async, completion = async.new(context, pack, settings.queue_limit)

  local plugin, block, block_name, hooks, feed, ask_storage, show_storage = nil, nil, nil, nil, nil, nil, nil
  local run_keys, run_items, run_metrics, ways

  -- Calls a function of the script. True and its result, or false, after the failure was put into the outbox.
  local function guarded(name, fn, ...)
    local ok, result = xpcall(fn, failure.handler, ...)
    if ok then return true, result end
    box.put(effects.ERROR, 3, name, failure.parts(result))
    return false
  end

  -- Packs and counts join the outbox. Whether it is empty, and nothing was called in the batch, even past it.
  local function end_batch()
    completion.flush_pack()
    flush_engine()
    counters.cross()
    completion.report_rejected()
    return box.is_empty() and completion.is_quiet()
  end

  local seen_by_script, promised = promises.new(context, end_batch)
  T_of_host.promise, T_of_host.host.call = seen_by_script.promise, seen_by_script.call

  if T_of_host.sim then require("offpath.sim").extend(T_of_host.sim, context, guarded) end

  local host_end = {}

  -- Runs the chunk. Nothing when all is well; message and traceback otherwise.
  function host_end.load(source, chunkname, directory, roots)
    prelude.set_path(directory, roots)
    local chunk, wrong = loadstring(source, "@" .. chunkname)
    if not chunk then return wrong, "" end
    local ok, failed = xpcall(chunk, failure.handler)
    if not ok then return failure.parts(failed) end
    plugin = rawget(_G, "TrisulPlugin")
    if plugin == nil then return "the script defines no global table TrisulPlugin", "" end
    if type(plugin) ~= "table" then return "TrisulPlugin must be a table, not a " .. type(plugin), "" end
  end

  -- The table TrisulPlugin as JSON: { fields = shapes, id = shapes, blocks = { name = shapes } }.
  function host_end.describe()
    local blocks = {}
    for name, value in pairs(plugin) do
      if type(name) == "string" and type(value) == "table" and name ~= "id" and name ~= "message_subscriptions" then
        blocks[name] = shapes(value)
      end
    end
    local id = type(plugin.id) == "table" and shapes(plugin.id) or nil
    return JSON:encode({ fields = shapes(plugin), id = id, blocks = blocks })
  end

  -- The groups that a field of the block names: a GUID, a function that gives one, or an array of these. As JSON.
  function host_end.groups(name, field)
    local value = plugin[name][field]
    local groups = {}
    for _, each in ipairs(type(value) == "table" and value or { value }) do
      if type(each) == "function" then
        local _, guid = guarded(name .. "." .. field, each)
        each = guid
      end
      if type(each) == "string" then groups[#groups + 1] = each end
    end
    return JSON:encode(groups)
  end

  -- The numbers and texts of `control` of a block, as JSON (spec 2.9).
  function host_end.control(name)
    local control = plugin[name].control
    return JSON:encode(type(control) == "table" and shapes(control) or {})
  end

  -- Chooses the block whose hooks this state runs; "" for a script without one.
  -- `group` is the GUID of the group that this instance is attached to, or nil.
  function host_end.bind(name, group, group_name)
    block, block_name, hooks = plugin[name], name, adapters[name]
    T_of_host.monitor_group_guid, T_of_host.monitor_group_name = group, group_name
  end

  -- Top-level onload, then the block's own (spec 9.1 L5). True, false for a veto; nothing after an error.
  function host_end.onload(time)
    context.time = time
    for _, owner in ipairs({ plugin, block or {} }) do
      if type(owner.onload) == "function" then
        local ok, result = guarded("onload", owner.onload)
        if not ok then return nil end
        if result == false then return false end
      end
    end
    return true
  end

  function host_end.onunload(time)
    context.time = time
    for _, owner in ipairs({ block or {}, plugin }) do
      if type(owner.onunload) == "function" then guarded("onunload", owner.onunload) end
    end
  end

  -- Packs async_onload and async_onunload, for workers: code id and upvalues of each, false for one that is not there.
  function host_end.worker_hooks()
    local packed = {}
    for _, name in ipairs({ "async_onload", "async_onunload" }) do
      local fn, code, upvalues = rawget(plugin, name), false, false
      if type(fn) == "function" then
        guarded(name, function()
          code, upvalues = pack(fn)
          if not code then error(name .. " must be a Lua function, not a C function", 0) end
        end)
      end
      packed[#packed + 1], packed[#packed + 2] = code or false, upvalues or false
    end
    return unpack(packed)
  end

  -- Calls one hook of the block. True and its result, or false. `lease` is the file that async work keeps, or 0.
  function host_end.call(name, time, lease, ...)
    context.time, context.lease = time, lease
    local ok, result = guarded(name, hooks[name], block[name], context.engine, time, ...)
    context.lease = 0
    if ok and (result == nil or type(result) == "boolean") then return true, result end
    if ok then return true, tostring(result) end
    return false
  end

  -- A connection begins whose bytes onpayload gets.
  host_end.new_flow = context.new_flow

  -- Calls onpayload for the next bytes of a connection, unless the script has given it up. Whether it has, or does now.
  function host_end.payload(time, flow, ...)
    if context.gave_up(flow) then return true end
    context.time = time
    guarded("onpayload", hooks.onpayload, block.onpayload, context.engine, time, flow, ...)
    return context.gave_up(flow)
  end

  -- The protocols that the block names, as GUIDs and names, those with a number of their own left out; or nil and what is wrong.
  function host_end.protocols()
    local ok, named = pcall(packetblock.named, block_name, block)
    if not ok then return false, named end
    local unknown = {}
    for at = 1, #named, 2 do
      if not protocols.find(named[at]) then unknown[#unknown + 1], unknown[#unknown + 2] = named[at], named[at + 1] end
    end
    return true, unpack(unknown)
  end

  -- The first and the last number for protocols that scripts name.
  function host_end.protocol_numbers() return protocols.NATIVE + 1, protocols.MOST end

  host_end.learn_protocol = protocols.learn

  -- Host and protocol of a handler that lies above another handler's protocol, as numbers; or nothing.
  function host_end.guest() return packetblock.guest(block_name, block) end

  host_end.learn_guest = protocols.learn_guest

  -- Another capture begins, with flow rows of its own.
  host_end.new_capture = flowkey.forget

  -- Runs the packet hook over the frames of a batch (feed.lua). How many name another protocol next, and calls made.
  function host_end.packets(address, count, first, named_only)
    feed = feed or packetblock.start(block_name, block, context)
    return feed(address, count, first, named_only)
  end

  -- What drives the block as a source of packets and alerts (inputfilter.lua); `memory` and `room` are for the packets.
  function host_end.begin_input(memory, room, time)
    context.time = time
    return inputfilter.start(context, block, memory, room)
  end

  -- Another capture: what asks this block about its flows (storage.lua).
  function host_end.begin_storage(ranks, rows)
    ask_storage, show_storage = storage.asker(context, block, ranks, rows)
  end

  function host_end.ask_storage(address, count) return ask_storage(address, count) end

  function host_end.show_storage(...) show_storage(...) end

  -- A filter that returned no boolean is named once; it counts as true (spec 2.1).
  local complained = {}
  local function complain(hook)
    if complained[hook] then return end
    complained[hook] = true
    context.log("WARN", ("%s.%s returned no boolean, which counts as true"):format(block_name, hook))
  end

  -- Hooks of a counter group monitor over many keys (flushkeys.lua), and of the other monitors over items (flushitems.lua).
  function host_end.flush_keys(...)
    run_keys = run_keys or flushkeys.start(context, block, complain)
    return run_keys(...)
  end

  function host_end.flush_items(...)
    if not run_items then run_items = flushitems.start(context, block, block_name, complain) end
    return run_items(...)
  end

  function host_end.flow_metrics(...)
    if not run_metrics then run_metrics = select(2, flushitems.start(context, block, block_name, complain)) end
    return run_metrics(...)
  end

  -- The ways of giving events to onevent (events.lua): all of them, and the one that any values can go.
  function host_end.event_ways()
    ways = ways or events.start(context, block, end_batch)
    return ways.one, ways.one_written, ways.written, ways.strings, ways.packed
  end

  function host_end.events(...)
    host_end.event_ways()
    return ways.each(...)
  end

  -- Requests and calls of the host's functions (promises.lua).
  function host_end.ask(...) return promised.ask(block, ...) end

  function host_end.ask_written(time, topic, text, bytes_checked)
    local event, refused = plain.read(text, bytes_checked)
    if refused then return nil, refused end
    return promised.ask(block, time, topic, event)
  end

  host_end.answered = promised.answered

  -- Gives one message to onmessage. True unless it raised.
  function host_end.message(time, id, message)
    context.time = time
    return (guarded("onmessage", plugin.onmessage, id, message))
  end

  -- Completions of async tasks, and counts of those without a callback.
  function host_end.complete(time, ...)
    context.time = time
    completion.complete(...)
  end

  -- A pack of outcomes (async.lua).
  function host_end.complete_pack(time, count, outcomes)
    context.time = time
    completion.complete_pack(count, outcomes)
  end

  -- The outcomes that came by the lane: of how many tasks.
  function host_end.complete_lane(time)
    context.time = time
    return completion.complete_lane()
  end

  -- A window ends: what is counted from here on is of the next one. What was counted crosses by and by with `take`.
  host_end.leave_counters = counters.leave

  -- The next of it goes into the outbox. Whether some is left.
  host_end.cross_counters = counters.cross

  -- A group was registered: its kind is that of a member of T, as in "countergroups"; `types` as in counters.lua.
  function host_end.learn_group(kind, name, guid, types)
    if types then counters.learn(guid, types) end
    local known = rawget(T_of_host, kind)
    if known then known[name] = guid end
  end

  -- What a declarative block says, as JSON (declared.lua).
  function host_end.declared(name) return JSON:encode(declared.read(plugin[name])) end

  host_end.lower_limit = completion.lower_limit
  host_end.settle = completion.settle
  host_end.note_quick = completion.note_quick
  host_end.use_lane = completion.use_lane

  -- The next values of the outbox; none when it is empty. With `ends` the batch ends: packs and counts join it before.
  function host_end.take(ends)
    if ends then end_batch() end
    return box.take()
  end

  return host_end
end

return M
