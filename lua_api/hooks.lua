-- How the host's plain values become the arguments of each hook (spec 2), one adapter a hook. An adapter gets the script's
-- function, the engine, and what the host sent; it returns what the hook returned.

local from_key = require("offpath.flowid").from_key
local from_block = require("offpath.httpheader").from_block
local from_string = require("offpath.buffer").from_string
local resource = require("offpath.resource")
local items = require("offpath.flushitems")

local floor = math.floor

-- Scripts do integer arithmetic on stream time (spec 9.2 H20); only event_monitor, which is ours, gets the fraction.
local M = {}

M.filex_monitor = {
  filter_flow = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
  filter = function(fn, engine, time, flow, head)
    return fn(engine, floor(time), from_key(flow), from_block(head))
  end,
  onpayload_raw = function(fn, engine, time, flow, direction, seekpos, data)
    return fn(engine, floor(time), from_key(flow), direction, seekpos, from_string(data))
  end,
  onpayload_http = function(fn, engine, time, flow, path, request, response, direction, seekpos, data)
    return fn(
      engine, floor(time), from_key(flow), path, from_block(request), from_block(response), direction, seekpos,
      from_string(data)
    )
  end,
  onfile_http = function(fn, engine, time, flow, path, request, response, length, is_partial)
    return fn(engine, floor(time), from_key(flow), path, from_block(request), from_block(response), length, is_partial)
  end,
  onterminateflow = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
}

-- `direction` is 0 for server to client here, and 1 for client to server (spec 2.11).
M.reassembly_handler = {
  filter = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
  onnewflow = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
  onpayload = function(fn, engine, time, flow, direction, seekpos, data)
    return fn(engine, floor(time), from_key(flow), direction, seekpos, from_string(data))
  end,
  onattribute = function(fn, engine, time, flow, name, value)
    return fn(engine, floor(time), from_key(flow), name, value)
  end,
  onterminateflow = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
}

M.flowmonitor = {
  onflowattribute = function(fn, engine, time, flow, name, value)
    return fn(engine, from_key(flow), floor(time), name, from_string(value))
  end,
}

-- Begin and end of a flush, and the metronome: the same in all backend types (spec 2.1).
local function at_time(fn, engine, time) return fn(engine, floor(time)) end

local function with_cycle(hooks)
  hooks.onbeginflush, hooks.onendflush = at_time, at_time
  hooks.onmetronome = function(fn, engine, time, count, interval) return fn(engine, floor(time), count, interval) end
  return hooks
end

M.resource_monitor = with_cycle({
  onnewresource = function(fn, engine, time, flow, uri, label)
    return fn(engine, resource.new({ time = time, flow = flow, uri = uri, contents = label }))
  end,
})

M.alert_monitor = with_cycle({
  onnewalert = function(fn, engine, time, ...) return fn(engine, items.alert(...)) end,
})

M.fts_monitor = with_cycle({
  onnewfts = function(fn, engine, _, ...) return fn(engine, items.document(...)) end,
})

local function with_flow(fn, engine, _, ...) return fn(engine, items.flow(...)) end

M.sg_monitor = with_cycle({ onnewflow = with_flow, onupdate = with_flow, onterminate = with_flow })

M.cg_monitor = with_cycle({
  onbegintopperflush = function(fn, engine, time, meter) return fn(engine, floor(time), meter) end,
  onendtopperflush = function(fn, engine, _, meter) return fn(engine, meter) end,
})

M.engine_monitor = with_cycle({})
M.flowtracker = with_cycle({})

M.packet_storage = {
  filter = function(fn, engine, time, flow)
    return fn(engine, floor(time), from_key(flow))
  end,
  filter_payload = function(fn, engine, time, flow, direction, seekpos, data)
    return fn(engine, floor(time), from_key(flow), direction, seekpos, from_string(data))
  end,
}

-- The host calls these in a loop of their own (inputfilter.lua).
M.inputfilter = {
  step = function(fn, engine, packet) return fn(packet, engine) end,
  step_alert = function(fn) return fn() end,
}

M.messagemonitor = {
  onnewflowrecord = function(fn, engine, _, flow, bytes_az, bytes_za, packets_az, packets_za)
    return fn(engine, from_key(flow), bytes_az, bytes_za, packets_az, packets_za)
  end,
  onflowmetric = function(fn, engine, _, flow, meter, value)
    return fn(engine, from_key(flow), meter, value)
  end,
}

M.simulation = {
  onbegin = function(fn, engine, _, now) return fn(engine, now) end,
  onend = function(fn, engine, _, now) return fn(engine, now) end,
}

M.channellistener = {
  onchannelmessage = function(fn, _, _, id, data) return fn(id, from_string(data)) end,
}

M.event_monitor = {
  onevent = function(fn, engine, time, topic, event)
    return fn(engine, time, topic, event)
  end,
}

return M
