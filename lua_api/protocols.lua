-- The protocols that captures are dissected into: a small number for each, as frames name it, with GUID and name.
-- `protocols.TCP` is a number; `guid`, `name` and `number` lead from one to the other.
local guids = require "offpath.guids"

local M = {
  guid = {},      -- by number
  name = {},      -- by number
  number = {},    -- by GUID in upper case
  guest = {},     -- what lies above a protocol that scripts name, where no handler says otherwise; both are numbers
  MOST = 63,      -- the highest number there may be: a frame has one bit for each
}

local known = guids.protocol

-- GUIDs that are well-known come from there; all others are our own and never change. The order is the number.
local ROWS = {
  { "ETHERNET", "Ethernet", known.Ethernet },
  { "LLC", "LLC", "{BB69ABEA-3E4A-4230-8691-2A040E155BB3}" },
  { "VLAN", "VLAN", "{2A216746-A9AA-41B6-95E3-639860F28D64}" },
  { "MPLS", "MPLS", "{41837EC7-E679-4486-888A-89A1EF3A3F09}" },
  { "PW_CONTROL", "PW control word", "{78AAD4DC-1B9A-4B87-9FC6-79087D0374D7}" },
  { "PPPOE", "PPPoE", "{808F5511-F025-4DC2-8BD8-58B739DEA666}" },
  { "PPP", "PPP", "{4FDBF5A6-2420-4D86-BCF5-EAD4E46E0C45}" },
  { "SLL", "SLL", "{A42EDB16-4F24-4458-AE6E-0974989D0524}" },
  { "SLL2", "SLL2", "{24A815A9-ECAE-4577-AE98-9A6B90135A8D}" },
  { "LOOPBACK", "Loopback", "{66408476-4095-42D3-BD3D-B67CF0BC3FF2}" },
  { "RADIOTAP", "Radiotap", "{62836529-177B-4E20-BBCD-DD391D7D0346}" },
  { "WLAN", "802.11", "{AC8A02CD-43C2-4B2E-A4BC-F39093C391C8}" },
  { "AMSDU", "A-MSDU", "{E87E4A31-AE23-4ECD-B9D4-E06D25D4216F}" },
  { "ARP", "ARP", "{FAD7670E-E895-453E-8715-AA758C5E265D}" },
  { "IPV4", "IPv4", known.IPv4 },
  { "IPV6", "IPv6", known.IPv6 },
  { "IPV6_HOP_BY_HOP", "IPv6 hop-by-hop", "{45F08C7B-F4D0-478C-927D-9B521FF4FCBE}" },
  { "IPV6_ROUTING", "IPv6 routing", "{C9051CB4-8DA7-487F-AF5A-A71DC730AC79}" },
  { "IPV6_FRAGMENT", "IPv6 fragment", "{61A5DF7C-6D0A-48E3-950F-3CE8F94F1C80}" },
  { "IPV6_DESTINATION", "IPv6 destination options", "{4FEED841-990B-4A7F-9E26-3CE7F5227897}" },
  { "IPV6_MOBILITY", "IPv6 mobility", "{746A3461-51B2-4401-9FE9-B8644C84E646}" },
  { "HIP", "HIP", "{A497FBC4-4E81-4AA9-B74D-9FAC30A9951F}" },
  { "SHIM6", "Shim6", "{BCCCC26C-02C8-4DE4-8BDA-AB726A096CB3}" },
  { "AH", "AH", "{6A25DCEB-2DA5-44FB-857D-73079C85C355}" },
  { "ESP", "ESP", "{FCA41326-82EA-41F6-9703-117AECCAE628}" },
  { "TCP", "TCP", known.TCP },
  { "UDP", "UDP", known.UDP },
  { "SCTP", "SCTP", "{78739B11-2DA0-47E5-BB82-C9AD991273D9}" },
  { "ICMP", "ICMP", known.ICMP },
  { "ICMPV6", "ICMPv6", "{F6799573-6C76-4B01-8BEB-7647C3ADB1CA}" },
  { "IGMP", "IGMP", known.IGMP },
  { "GRE", "GRE", "{BCF86D55-1C38-42DC-AF09-F04E842011E9}" },
  { "ERSPAN", "ERSPAN", "{E8135100-D017-4F49-B4CC-8596B4F9EA31}" },
  { "VXLAN", "VXLAN", "{97FC3DB0-412A-406D-935B-E9BF3BDC68BF}" },
  { "GENEVE", "GENEVE", "{7E031313-9FE4-4466-B86E-9188F94D3B6C}" },
  { "GTPU", "GTP-U", "{615C06CD-681D-4DC1-BE5D-5A8B23F20B2B}" },
}

for number, row in ipairs(ROWS) do
  local constant, name, guid = unpack(row)
  M[constant], M.name[number], M.guid[number], M.number[guid] = number, name, guid, number
end

assert(#ROWS <= M.MOST)

M.NATIVE = #ROWS    -- numbers up to here are those above; the others are of protocols that scripts name

-- Makes a protocol known that a script names. All states of an engine must give it the same number.
function M.learn(number, guid, name)
  if M.number[guid] then return end
  M.number[guid], M.guid[number], M.name[number] = number, guid, name ~= "" and name or guid
end

-- Makes known that a protocol handler has another protocol of scripts for its host; the last one counts.
function M.learn_guest(host, number) M.guest[host] = number end

local spelled = {}   -- numbers by GUIDs in other letter case, as scripts have them

-- The number of a protocol by its GUID in any letter case, or nil.
function M.find(guid)
  local number = M.number[guid] or spelled[guid]
  if number then return number end
  local canonical = guids.canonical(guid)
  number = canonical and M.number[canonical]
  if number then spelled[guid] = number end
  return number
end

return M
