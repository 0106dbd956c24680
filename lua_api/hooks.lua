-- How the host's plain values become the arguments of each hook (spec 2), one adapter a hook. An adapter gets the script's
-- function, the engine, and what the host sent; it returns what the hook returned.

local from_key = require("offpath.flowid").from_key
local from_block = require("offpath.httpheader").from_block
local from_string = require("offpath.buffer").from_string
local resource = require("offpath.resource")
local alert = require("offpath.alert")

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

M.resource_monitor = {
  onnewresource = function(fn, engine, time, flow, uri, label)
    return fn(engine, resource.new({ time = time, flow = flow, uri = uri, contents = label }))
  end,
}

M.alert_monitor = {
  onnewalert = function(fn, engine, time, flow, sigid, classification, priority, message, status)
    return fn(engine, alert.new({
      time = time, flow = flow, sigid = sigid, classification = classification, priority = priority, message = message,
      status = status,
    }))
  end,
}

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

M.event_monitor = {
  onevent = function(fn, engine, time, topic, event)
    return fn(engine, time, topic, event)
  end,
}

return M
