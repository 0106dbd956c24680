-- Programs that a script reads from by io.popen and leaves open: they end with the state, which would wait for them for ever.
-- Returns what ends them. A program that is written to reads its end of file when the state goes, and is waited for.

local ffi = require("ffi")

ffi.cdef([[
  typedef struct { long seconds, nanoseconds; } offpath_interval_t;
  int kill(int pid, int signal);
  int nanosleep(const offpath_interval_t *wanted, offpath_interval_t *left);
]])

local SIGTERM, SIGKILL, SIGSTOP = 15, 9, 19
local LOOKS = 50                    -- at programs that were told to end, before they are killed
local MOMENT = ffi.new("offpath_interval_t", 0, 10 * 1000 * 1000)

local C = ffi.C
local popen, open, io_type = io.popen, io.open, io.type
local pids = setmetatable({}, { __mode = "k" }) -- of programs, by the file that a script reads

local function read(path)
  local file = open(path, "rb")
  if not file then return "" end
  local text = file:read("*a") or ""
  file:close()
  return text
end

-- The processes that a thread has started and that are not waited for, in their order.
local function children(thread)
  local found = {}
  for pid in read("/proc/" .. thread .. "/children"):gmatch("%d+") do found[#found + 1] = tonumber(pid) end
  return found
end

local function open_noting(command, mode)
  local before = {}
  for _, pid in ipairs(children("thread-self")) do before[pid] = true end
  local file, message, code = popen(command, mode)
  if not file then return nil, message, code end
  for _, pid in ipairs(children("thread-self")) do
    if not before[pid] then pids[file] = pid end
  end
  return file
end

function io.popen(command, mode)
  if type(command) ~= "string" and type(command) ~= "number" then
    error("bad argument #1 to 'popen' (string expected, got " .. (command == nil and "no value" or type(command)) .. ")", 2)
  end
  if mode ~= nil and mode ~= "r" then return popen(command, mode) end
  return open_noting(command, "r")
end

-- Processes and all that they have started. One that is stopped starts no others while they are looked for.
local function with_children(these, stop, family)
  for _, pid in ipairs(these) do
    if stop then C.kill(pid, SIGSTOP) end
    family[#family + 1] = pid
    with_children(children(pid .. "/task/" .. pid), stop, family)
  end
  return family
end

local function signal(family, number)
  for _, pid in ipairs(family) do C.kill(pid, number) end
end

local function is_alive(pid)
  local state = read("/proc/" .. pid .. "/stat"):match("^.*%) (%a)")
  return state ~= nil and state ~= "Z"
end

local function someone_is_alive(family)
  for _, pid in ipairs(family) do
    if is_alive(pid) then return true end
  end
  return false
end

return function()
  local read_from = {}
  for file, pid in pairs(pids) do
    if io_type(file) == "file" then read_from[#read_from + 1] = pid end
  end
  local family = with_children(read_from, false, {})
  signal(family, SIGTERM)
  for _ = 1, LOOKS do
    if not someone_is_alive(family) then return end
    C.nanosleep(MOMENT, nil)
  end
  signal(with_children(read_from, true, {}), SIGKILL)
end
