-- Copies small files, many with one call: a thread that makes system calls from here does not need the host's interpreter
-- lock between them.
--
-- A file is copied as files.py would do it, or not at all. Whatever is not a small regular file, or goes wrong, is left to
-- that, and nothing behind it is begun.

local ffi = require("ffi")

local C = ffi.C

ffi.cdef([[
int offpath_lock(void *mutex) __asm__("pthread_mutex_lock");
int offpath_unlock(void *mutex) __asm__("pthread_mutex_unlock");
int offpath_open(const char *path, int flags, unsigned mode) __asm__("open");
int offpath_close(int descriptor) __asm__("close");
int offpath_fchmod(int descriptor, unsigned mode) __asm__("fchmod");
int offpath_rename(const char *from, const char *to) __asm__("rename");
int offpath_unlink(const char *path) __asm__("unlink");
intptr_t offpath_read(int descriptor, void *to, size_t count) __asm__("read");
intptr_t offpath_write(int descriptor, const void *from, size_t count) __asm__("write");
typedef struct { uint32_t head[7]; uint16_t mode; uint16_t spare; uint64_t inode; uint64_t size; uint8_t rest[208]; } offpath_statx_t;
int offpath_statx(int folder, const char *path, int flags, unsigned mask, offpath_statx_t *status) __asm__("statx");
typedef struct { uint64_t mutex[8]; volatile double begun; volatile int32_t next; volatile int32_t limit; int32_t moved[16]; } offpath_copies_t;
]])

-- statx(2), which has the same layout everywhere.
local AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
local TYPE_MODE_SIZE = 0x203
local FORMAT, REGULAR, PERMISSIONS = 0xF000, 0x8000, 0xFFF

local M = {}

-- `place` is the address of an offpath_copies_t, `prefix` what names of temporary files begin with, `small` the most bytes,
-- `reading` and `writing` are flags of open(2), `absent` is ENOENT. Returns copy_all(source, target, ...), which puts the
-- bytes of each copy that was begun into `moved`, -1 of one that was not done.
function M.new(place, prefix, small, reading, writing, absent)
  local copies = ffi.cast("offpath_copies_t *", place)
  local status, bytes = ffi.new("offpath_statx_t"), ffi.new("uint8_t[?]", small + 1)
  local number = 0

  -- The permissions of what a copy would replace, -1 when there is nothing; nil when that is no regular file.
  local function replaced(target)
    if C.offpath_statx(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW, TYPE_MODE_SIZE, status) ~= 0 then
      return ffi.errno() == absent and -1 or nil
    end
    if bit.band(status.mode, FORMAT) ~= REGULAR then return nil end
    return bit.band(status.mode, PERMISSIONS)
  end

  -- Reads a whole file: how many bytes; nil when it is not one of those that are copied here. What it is, is asked by name:
  -- to open a pipe and to close it again would end what is written to it.
  local function read_all(source)
    if C.offpath_statx(AT_FDCWD, source, 0, TYPE_MODE_SIZE, status) ~= 0 then return nil end
    if bit.band(status.mode, FORMAT) ~= REGULAR then return nil end
    local size = tonumber(status.size)
    if size == 0 or size > small then return nil end
    local from = C.offpath_open(source, reading, 0)
    if from < 0 then return nil end
    -- One that has another size when it is read is no plain file: those of procfs have size 0.
    local whole = C.offpath_read(from, bytes, size + 1) == size
    C.offpath_close(from)
    return whole and size or nil
  end

  local function write_all(path, size, mode)
    local to = C.offpath_open(path, writing, mode < 0 and 0x1B6 or 0x180) -- 0666, 0600
    if to < 0 then return false end
    local ok = (mode < 0 or C.offpath_fchmod(to, mode) == 0) and C.offpath_write(to, bytes, size) == size
    return C.offpath_close(to) == 0 and ok
  end

  local function copy(source, target)
    if source:find("\0", 1, true) or target:find("\0", 1, true) or target:find("/$") or target == "" then return -1 end
    local mode = replaced(target)
    local size = mode and read_all(source)
    if not size then return -1 end
    number = number + 1
    local temporary = ("%s%s-%x.tmp"):format(target:match("^.*/") or "", prefix, number)
    if write_all(temporary, size, mode) and C.offpath_rename(temporary, target) == 0 then return size end
    C.offpath_unlink(temporary)
    return -1
  end

  -- The place of the copy to begin now, from 0; nil when there is none, or the host has taken the rest away.
  local function begin()
    C.offpath_lock(copies.mutex)
    local at = copies.next
    local may = at < copies.limit
    if may then
      copies.moved[at], copies.next, copies.begun = -1, at + 1, copies.begun + 1
    end
    C.offpath_unlock(copies.mutex)
    return may and at or nil
  end

  return function(...)
    local paths = { ... }
    for at in begin do
      local moved = copy(paths[2 * at + 1], paths[2 * at + 2])
      copies.moved[at] = moved
      if moved < 0 then break end
    end
  end
end

return M
