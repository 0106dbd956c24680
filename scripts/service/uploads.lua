-- Hashes every upload off the loop, keeps it under its SHA-256, and raises an alert when that is on the list in T.args: one
-- hash a line, a name behind it, # for comments. See app.py.
local ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}" -- User Alerts

local known = {}

local function read_list(file)
  for line in io.lines(file) do
    local hash, name = line:match("^(%x+)%s*(.*)$")
    if hash and #hash == 64 then known[hash:lower()] = name end
  end
end

-- On a worker's thread.
local function hash(path)
  local pipe = io.popen("sha256sum < '" .. path:gsub("'", "'\\''") .. "'")
  local sum = pipe:read("*a"):sub(1, 64)
  pipe:close()
  return sum
end

TrisulPlugin = {
  id = { name = "uploads", description = "Hashes, keeps and flags uploads" },
  request_async_workers = 2,

  onload = function()
    if T.args ~= "" then read_list(T.args) end
  end,

  event_monitor = {
    topics = { "uploads.stored" },
    onevent = function(engine, timestamp, topic, upload)
      T.async:schedule({
        data = upload.path,
        onexecute = hash,
        onresult = function(later, path, sum)
          T.async:copy(path, upload.kept .. "/" .. sum)
          T.async:rm(path) -- after the copy: what is done with one path keeps its order
          local name = known[sum]
          if name then later:add_alert(ALERTS, nil, sum:sub(1, 16), 1, ("%s is %s"):format(upload.name, name)) end
        end,
      })
    end,
  },
}
