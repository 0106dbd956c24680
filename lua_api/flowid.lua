-- FlowID: a flow key, and its parts on demand (spec 3.2). A key is never refused: the parts of one that cannot
-- be read are "", and every method returns a string.
local M = {}

local address = require "offpath.address"

local byte, find, format, lower, match, sub =
  string.byte, string.find, string.format, string.lower, string.match, string.sub
local getmetatable, setmetatable, tonumber, tostring, type = getmetatable, setmetatable, tonumber, tostring, type

-- Names of IP protocols by their two hex digits. Non-IP packets have the protocol 00.
M.PROTOCOLS = {
  ["00"] = "NONIP", ["01"] = "ICMP", ["02"] = "IGMP", ["04"] = "IPIP", ["06"] = "TCP", ["08"] = "EGP",
  ["09"] = "IGP", ["11"] = "UDP", ["1B"] = "RDP", ["21"] = "DCCP", ["29"] = "IPV6", ["2B"] = "ROUTE",
  ["2C"] = "FRAG", ["2E"] = "RSVP", ["2F"] = "GRE", ["32"] = "ESP", ["33"] = "AH", ["3A"] = "ICMP6",
  ["58"] = "EIGRP", ["59"] = "OSPF", ["5E"] = "IPIP", ["67"] = "PIM", ["70"] = "VRRP", ["73"] = "L2TP",
  ["84"] = "SCTP", ["88"] = "UDPL",
}
local PROTOCOLS = M.PROTOCOLS

-- Protocols whose ports are read as numbers: TCP, UDP, SCTP and UDP-Lite.
local WITH_PORTS = { ["06"] = true, ["11"] = true, ["84"] = true, ["88"] = true }

M.ZERO_KEY = "00A:00.00.00.00:p-0000_00.00.00.00:p-0000"

-- First and last column of each field, and the columns that hold ":" and "_", by width of the address.
local NARROW = {
  a = { 5, 15 }, pa = { 17, 22 }, z = { 24, 34 }, pz = { 36, 41 }, colons = { 16, 35 }, bar = 23, len = 41,
}
local WIDE = {
  a = { 5, 36 }, pa = { 38, 43 }, z = { 45, 76 }, pz = { 78, 83 }, colons = { 37, 77 }, bar = 44, len = 83,
}
local LAYOUTS = { A = NARROW, B = WIDE, C = NARROW, D = WIDE }

local COLON, BAR = byte(":"), byte("_")

local FlowID = {}
FlowID.__index = FlowID

-- Cuts the key by columns; false when its separators stand elsewhere.
local function parse_columns(self, key)
  local layout = LAYOUTS[sub(key, 3, 3)]
  if not layout or #key < layout.len or byte(key, 4) ~= COLON or byte(key, layout.bar) ~= BAR then return false end
  if byte(key, layout.colons[1]) ~= COLON or byte(key, layout.colons[2]) ~= COLON then return false end
  if #key > layout.len and byte(key, layout.len + 1) ~= BAR then return false end
  self.f_ipa, self.f_porta = sub(key, layout.a[1], layout.a[2]), sub(key, layout.pa[1], layout.pa[2])
  self.f_ipz, self.f_portz = sub(key, layout.z[1], layout.z[2]), sub(key, layout.pz[1], layout.pz[2])
  self.f_rest = sub(key, layout.len + 1)
  return true
end

-- Cuts a key of other widths, such as one with protocol words in place of ports, by its separators.
local function parse_separators(self, key)
  local a, pa, z, pz, rest = match(key, "^%x%x[A-D]:([^:_]*):([^:_]*)_([^:_]*):([^:_]*)(.*)$")
  self.f_ipa, self.f_porta, self.f_ipz, self.f_portz = a or "", pa or "", z or "", pz or ""
  self.f_rest = rest or ""
  return a ~= nil
end

local function parse(self)
  local key = self.f_key
  local known = parse_columns(self, key) or parse_separators(self, key)
  self.f_protocol = known and sub(key, 1, 2) or ""
  self.f_type = known and sub(key, 3, 3) or ""
  local router, index_in, index_out
  if self.f_rest ~= "" then router, index_in, index_out = match(self.f_rest, "^_([^_]+)_([^_]+)_([^_]+)$") end
  self.f_router, self.f_in, self.f_out = router or "", index_in or "", index_out or ""
  return self
end

-- Field accessors; the first of them to be called parses the key.
local function field(name)
  return function(self)
    if not self.f_type then parse(self) end
    return self[name]
  end
end

-- A readable form, computed once per object.
local function cached(name, compute)
  return function(self)
    local value = self[name]
    if value == nil then
      value = compute(self)
      self[name] = value
    end
    return value
  end
end

-- Name of the protocol; its hex digits when it has none.
local function protocol_name(self)
  local protocol = self:protocol()
  return PROTOCOLS[protocol] or protocol
end

-- A port in decimal, or for a protocol without ports a word like "icmp08".
local function port_readable(self, port)
  local value = address.port_number(port)
  if not value then return port end
  local protocol = self:protocol()
  if WITH_PORTS[protocol] then return format("%d", value) end
  return lower(PROTOCOLS[protocol] or "proto" .. protocol) .. format("%02x", value)
end

local function index_readable(text)
  if not find(text, "^%x%x?%x?%x?%x?%x?%x?%x?$") then return text end
  return format("%.0f", tonumber(text, 16))
end

-- The whole flow key.
function FlowID:id()
  return self.f_key
end

FlowID.key = FlowID.id
FlowID.__tostring = FlowID.id

-- Parts in key format.
FlowID.flow_type = field("f_type")
FlowID.protocol = field("f_protocol")
FlowID.ipa, FlowID.ipz = field("f_ipa"), field("f_ipz")
FlowID.porta, FlowID.portz = field("f_porta"), field("f_portz")
FlowID.netflow_router = field("f_router")
FlowID.netflow_ifindex_in, FlowID.netflow_ifindex_out = field("f_in"), field("f_out")

-- The same for people.
FlowID.ipa_readable = cached("r_ipa", function(self) return address.readable(self:ipa()) end)
FlowID.ipz_readable = cached("r_ipz", function(self) return address.readable(self:ipz()) end)
FlowID.porta_readable = cached("r_porta", function(self) return port_readable(self, self:porta()) end)
FlowID.portz_readable = cached("r_portz", function(self) return port_readable(self, self:portz()) end)
FlowID.netflow_router_readable = cached("r_router", function(self) return address.readable(self:netflow_router()) end)
FlowID.netflow_ifindex_in_readable = cached("r_in", function(self)
  return index_readable(self:netflow_ifindex_in())
end)
FlowID.netflow_ifindex_out_readable = cached("r_out", function(self)
  return index_readable(self:netflow_ifindex_out())
end)

-- A value and blanks up to the width of its column; at least one blank, so that long ones stay apart.
local function column(value, width)
  if #value >= width then return value .. " " end
  return value .. (" "):rep(width - #value)
end

-- Everything in columns of 5, 16, 6, 16, 6 and, for NetFlow, 16, 8, 8 characters, trailing blanks included.
FlowID.to_s = cached("r_all", function(self)
  local text = column(protocol_name(self), 5)
    .. column(self:ipa_readable(), 16)
    .. column(self:porta_readable(), 6)
    .. column(self:ipz_readable(), 16)
    .. column(self:portz_readable(), 6)
  if self:netflow_router() == "" then return text end
  return text
    .. column(self:netflow_router_readable(), 16)
    .. column(self:netflow_ifindex_in_readable(), 8)
    .. column(self:netflow_ifindex_out_readable(), 8)
end)

-- A FlowID over a flow key. What is no string gives the flow of all zeros.
function M.from_key(key)
  if type(key) == "number" then key = tostring(key) end
  return setmetatable({ f_key = type(key) == "string" and key or M.ZERO_KEY }, FlowID)
end

-- The flow key of a FlowID, or of a string as scripts may pass it as well; nil for anything else.
function M.key_of(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "table" and getmetatable(value) == FlowID then return value.f_key end
  if kind == "number" then return tostring(value) end
  return nil
end

return M
