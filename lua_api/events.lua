-- Runs onevent over the events of a batch (spec 2 knows no services; this block is ours).
--
-- Each way to cross gives one answer: true when all went well and nothing was left in the outbox; 0 when all went well; else
-- the places of the events that raised. "bytes" or "other" when the batch can't be read (plain.lua): then none was handled.

local ffi = require("ffi")
local effects = require("offpath.effects")
local failure = require("offpath.failure")
local plain = require("offpath.plain")

local xpcall, unpack = xpcall, unpack
local cast, ffi_string = ffi.cast, ffi.string
local read_flat = plain.read_flat

local M = {}

local LENGTHS, BYTES, LENGTH = ffi.typeof("const uint32_t *"), ffi.typeof("const char *"), ffi.typeof("const int32_t *")

-- `block` is the event_monitor. `end_batch()` puts what was gathered into the outbox: whether there is nothing in it.
function M.start(context, block, end_batch)
  local put = context.put
  local topic, events, memory, lengths, size, count, at, offset
  local held_bytes, held_sizes -- so that the memory stays

  -- What the protected calls below run: they go on after the event that raised.
  local function from_list()
    local engine, time, onevent = context.engine, context.time, block.onevent
    while at < count do
      at = at + 1
      onevent(engine, time, topic, events[at])
    end
  end

  local function from_memory()
    local engine, time, onevent = context.engine, context.time, block.onevent
    while at < count do
      local from, length = offset, lengths[at]
      offset, at = from + length, at + 1
      if offset > size then error("lengths of events go past their bytes", 0) end
      onevent(engine, time, topic, ffi_string(memory + from, length))
    end
  end

  -- After a letter, the length of the list and of each string are 4 bytes each.
  local function from_strings()
    local engine, time, onevent = context.engine, context.time, block.onevent
    while at < count do
      local from = offset + 5
      local length = cast(LENGTH, memory + offset + 1)[0]
      offset, at = from + length, at + 1
      if offset > size then error("a list of events goes past its end", 0) end
      onevent(engine, time, topic, ffi_string(memory + from, length))
    end
  end

  local function run(time, of_topic, body, first)
    context.time, topic, at, offset = time, of_topic, 0, first or 0
    local failed, failures = nil, 0
    while at < count do
      local ok, raised = xpcall(body, failure.handler)
      if not ok then
        put(effects.ERROR, 3, "onevent", failure.parts(raised))
        failed, failures = failed or {}, failures + 1
        failed[failures] = at
      end
    end
    events, memory, lengths, held_bytes, held_sizes = nil, nil, nil, nil, nil
    local is_quiet = end_batch()
    if failed then return unpack(failed) end
    return is_quiet or 0
  end

  local ways = {}

  local function run_one(time, of_topic, event)
    context.time = time
    local ok, raised = xpcall(block.onevent, failure.handler, context.engine, time, of_topic, event)
    if not ok then
      put(effects.ERROR, 3, "onevent", failure.parts(raised))
      end_batch()
      return 1
    end
    return end_batch() or 0
  end

  -- A single event, a string.
  ways.one = run_one

  -- A single event, a mapping written as plain.lua has it.
  function ways.one_written(time, of_topic, text)
    local event, refused = read_flat(text), nil
    if not event then event, refused = plain.read(text, false) end
    if refused then return refused end
    return run_one(time, of_topic, event)
  end

  -- Events one by one, as strings or tables.
  function ways.each(time, of_topic, ...)
    events, count = { ... }, select("#", ...)
    return run(time, of_topic, from_list)
  end

  -- Events in one text, as plain.lua has it.
  function ways.written(time, of_topic, how_many, text, bytes_checked)
    local list, refused = plain.read(text, bytes_checked)
    if not list then return refused end
    events, count = list, how_many
    return run(time, of_topic, from_list)
  end

  -- Byte strings as Python's `marshal` writes a list of them, in its version 2.
  function ways.strings(time, of_topic, how_many, list)
    held_bytes, memory, size, count = list, cast(BYTES, list), #list, how_many
    return run(time, of_topic, from_strings, 5)
  end

  -- Byte strings end to end from the byte `first` on, and the length of each as a 32-bit number.
  function ways.packed(time, of_topic, how_many, bytes, first, sizes)
    held_bytes, held_sizes = bytes, sizes
    memory, size, lengths, count = cast(BYTES, bytes) + first, #bytes - first, cast(LENGTHS, sizes), how_many
    return run(time, of_topic, from_memory)
  end

  return ways
end

return M
