-- The lane: memory through which packs of quick tasks go from a script's state to a worker's, and outcomes come back, past
-- the host, which would cost more than the tasks do. lane.py has the host's end: it opens the lane, hears the bell, and takes
-- everything back when something is not as usual.
--
-- One state posts, on the loop's thread, and one worker serves. All that both touch lies under a mutex, held for no longer
-- than it takes to copy a pack: nothing is allocated under it, as that may run finalizers of the script, or fail.

local ffi = require("ffi")
local durations = require("offpath.durations")
local now = require("offpath.monotonic").now

local C, copy, cast = ffi.C, ffi.copy, ffi.cast

-- Names of our own, as a script may declare the functions, too. `posted`, `taken` and `done` count packs. Outcomes lie in
-- `back` one behind the other, until the host takes them all.
ffi.cdef([[
int offpath_lock(void *mutex) __asm__("pthread_mutex_lock");
int offpath_unlock(void *mutex) __asm__("pthread_mutex_unlock");
int offpath_wait(void *condition, void *mutex) __asm__("pthread_cond_wait");
int offpath_signal(void *condition) __asm__("pthread_cond_signal");
int offpath_write(int descriptor, const void *bytes, size_t count) __asm__("write");
typedef struct { double first; double posted_at; int32_t count; int32_t bytes; uint8_t data[32768]; } offpath_pack_t;
typedef struct {
  uint64_t mutex[8]; uint64_t condition[8];
  volatile double posted; volatile double taken; volatile double done;
  volatile double posted_tasks; volatile double taken_tasks; volatile double given_tasks; volatile double fetched_tasks;
  volatile double wait_seconds; volatile double wait_counts[28];
  volatile int32_t open; volatile int32_t turn; volatile int32_t asleep; volatile int32_t rung;
  volatile int32_t back_tasks; volatile int32_t back_bytes; int32_t bell;
  volatile int32_t emptied; volatile int32_t expected;
  uint8_t back[65536];
  offpath_pack_t packs[8];
} offpath_lane_t;
]])
local lane_ptr_t, pack_ptr_t = ffi.typeof("offpath_lane_t *"), ffi.typeof("offpath_pack_t *")
local bytes_ptr_t, doubles_ptr_t = ffi.typeof("uint8_t *"), ffi.typeof("volatile double *")
local PACKS, PACK_BYTES, BACK_BYTES = 8, 32768, 65536
local BACK_TASKS = 512 -- so that the loop is not held for longer than these take

local SPIN = 50e-6 -- seconds that a worker looks for more before it sleeps: to wake it takes about as long

local stroke = ffi.new("uint8_t[1]", 1)

local M = {}

-- What lies at an address: the lane, its mutex, its condition, the bytes of outcomes, the packs and their data, from 0.
local function parts(address)
  local lane, packs, data = cast(lane_ptr_t, address), {}, {}
  for place = 0, PACKS - 1 do
    packs[place] = cast(pack_ptr_t, lane.packs + place)
    data[place] = cast(bytes_ptr_t, packs[place].data)
  end
  return lane, lane.mutex, lane.condition, cast(bytes_ptr_t, lane.back), packs, data
end

-- The end of the state that posts. On the loop's thread.
function M.poster(address)
  local lane, mutex, condition, back, packs = parts(address)
  local poster = {}

  -- Whether packs may be posted: nothing that was called before waits elsewhere.
  function poster.is_open() return lane.open ~= 0 end

  -- Whether the worker would have to wait for the next pack.
  function poster.is_drained() return lane.posted == lane.taken end

  -- Something goes another way, and what comes after it must not overtake it.
  function poster.shut() lane.open = 0 end

  -- Posts a pack. False when there is no room for it.
  function poster.post(first, count, stream)
    local from, bytes = stream:ref()
    if bytes > PACK_BYTES or lane.posted - lane.done >= PACKS then return false end
    local pack = packs[lane.posted % PACKS]
    pack.first, pack.count, pack.bytes, pack.posted_at = first, count, bytes, now()
    copy(pack.data, from, bytes)
    C.offpath_lock(mutex)
    lane.posted = lane.posted + 1
    lane.posted_tasks = lane.posted_tasks + count
    local asleep = lane.asleep ~= 0
    lane.asleep = 0
    C.offpath_unlock(mutex)
    if asleep then C.offpath_signal(condition) end
    return true
  end

  -- Fetches all outcomes that were given: puts them into `input`. Of how many tasks they are. None when the host has emptied
  -- the lane since the bell was heard: what it took has to come before what is there now, for which the bell rings again.
  function poster.fetch(input)
    input:reset():reserve(BACK_BYTES)
    C.offpath_lock(mutex)
    if lane.emptied ~= lane.expected then
      C.offpath_unlock(mutex)
      return 0
    end
    local tasks = lane.back_tasks
    input:putcdata(back, lane.back_bytes)
    lane.back_tasks, lane.back_bytes, lane.rung = 0, 0, 0
    lane.fetched_tasks = lane.fetched_tasks + tasks
    C.offpath_unlock(mutex)
    return tasks
  end

  return poster
end

-- The end of the worker that serves, for its `turn`: when another begins, the lane and what was in it is no longer its.
function M.server(address, turn)
  local lane, mutex, condition, back, packs, data = parts(address)
  local wait_counts = cast(doubles_ptr_t, lane.wait_counts)
  local server = {}

  -- Looks for a pack without a lock. Compiled: a loop without allocation.
  local function spin()
    local until_ = now() + SPIN
    while lane.posted == lane.taken and lane.turn == turn and now() < until_ do end
  end

  local function record_wait(posted_at, count)
    local seconds = now() - posted_at
    local bucket = durations.bucket(seconds)
    C.offpath_lock(mutex)
    wait_counts[bucket] = wait_counts[bucket] + count
    lane.wait_seconds = lane.wait_seconds + seconds * count
    C.offpath_unlock(mutex)
  end

  -- Waits for the next pack and puts it into `input`. Its first task's id and how many there are; nothing when the turn is over.
  function server.take(input)
    spin()
    input:reset():reserve(PACK_BYTES)
    C.offpath_lock(mutex)
    while lane.posted == lane.taken and lane.turn == turn do
      lane.asleep = 1
      C.offpath_wait(condition, mutex)
    end
    lane.asleep = 0
    if lane.turn ~= turn then
      C.offpath_unlock(mutex)
      return
    end
    local place = lane.taken % PACKS
    local pack = packs[place]
    local first, count, posted_at = pack.first, pack.count, pack.posted_at
    input:putcdata(data[place], pack.bytes)
    lane.taken, lane.given_tasks = lane.taken + 1, 0
    lane.taken_tasks = lane.taken_tasks + count
    C.offpath_unlock(mutex)
    record_wait(posted_at, count)
    return first, count
  end

  -- Whether outcomes that are given now would be fetched at once.
  function server.is_awaited() return lane.rung == 0 end

  local function has_room(bytes, tasks)
    local held = lane.back_tasks
    return lane.back_bytes + bytes <= BACK_BYTES and (held == 0 or held + tasks <= BACK_TASKS)
  end

  -- Gives outcomes of tasks of the pack that was taken, the last ones with `ends`. False when that is not possible: there
  -- is no room, or the turn is over.
  function server.give(outcomes, tasks, ends)
    local from, bytes = outcomes:ref()
    local held = lane.back_bytes
    local to = back + held
    C.offpath_lock(mutex)
    if lane.turn ~= turn or not has_room(bytes, tasks) then
      C.offpath_unlock(mutex)
      return false
    end
    if lane.back_bytes ~= held then to = back end -- all was fetched just now
    if bytes > 0 then copy(to, from, bytes) end
    lane.back_bytes, lane.back_tasks = lane.back_bytes + bytes, lane.back_tasks + tasks
    lane.given_tasks = lane.given_tasks + tasks
    if ends then lane.done = lane.done + 1 end
    if lane.rung == 0 and tasks > 0 then
      lane.rung = 1
      C.offpath_write(lane.bell, stroke, 1) -- the bell is taken away under the mutex, too
    end
    C.offpath_unlock(mutex)
    return true
  end

  return server
end

return M
