-- Every TLS connection with the server name that the client asked for, the cipher suite and the certificate's owner.
-- offpath run scripts/tls_sni.lua --capture FILE
local SNI_GROUP = "{38497403-23FB-4206-65C2-0AD5C419DD53}"
local HANDSHAKE, CLIENT_HELLO, SERVER_NAME = 22, 1, 0

-- A reader of big-endian numbers and of vectors with a length before them; 0 and "" behind the end.
local function reader(text)
  local at = 1
  local self = {}

  function self.number(width)
    local value = 0
    for _ = 1, width do
      value, at = value * 256 + (text:byte(at) or 0), at + 1
    end
    return value
  end

  function self.bytes(count)
    at = at + count
    return text:sub(at - count, at - 1)
  end

  function self.vector(width) return self.bytes(self.number(width)) end

  function self.done() return at > #text end

  return self
end

-- The server name in a TLS record that is a client hello, or nil.
local function server_name(record)
  if record:byte(1) ~= HANDSHAKE or record:byte(6) ~= CLIENT_HELLO then return nil end
  local hello = reader(record:sub(10))
  hello.bytes(2 + 32) -- version and random
  hello.vector(1)     -- session
  hello.vector(2)     -- cipher suites
  hello.vector(1)     -- compression
  local extensions = reader(hello.vector(2))
  while not extensions.done() do
    local kind, body = extensions.number(2), extensions.vector(2)
    if kind == SERVER_NAME then
      local names = reader(body)
      names.bytes(2 + 1) -- length of the list, kind of the first
      return names.vector(2)
    end
  end
end

local seen = {} -- by flow key

TrisulPlugin = {
  id = { name = "tls_sni", description = "Server names of TLS connections" },

  reassembly_handler = {
    onattribute = function(engine, _, flow, name, value)
      local key = flow:id()
      if name == "TLS:RECORD" then
        local host = server_name(value)
        if host then
          seen[key] = { host = host }
          engine:update_counter(SNI_GROUP, host, 1, 1)
          engine:tag_flow(key, host)
        end
      elseif seen[key] then
        seen[key][name] = value
      end
    end,

    onterminateflow = function(_, _, flow)
      local found = seen[flow:id()]
      if not found then return end
      seen[flow:id()] = nil
      local cipher, owner = found["TLS:CIPHER"] or "?", found["TLS:O"] or "?"
      print(("%s %s %s %s"):format(flow:ipz_readable(), found.host, cipher, owner))
    end,
  },
}
