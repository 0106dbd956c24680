-- Well-known GUIDs by name (spec 8.1, 8.2), one table for each kind: the same GUID may name things of two kinds.
local M = {}

local find, upper = string.find, string.upper
local type = type

local HEX4 = ("%x"):rep(4)
local SHAPE = "^{" .. HEX4 .. HEX4 .. ("%-" .. HEX4):rep(4) .. HEX4 .. HEX4 .. "}$"

-- Protocols, as layers and `find_layer` name them.
M.protocol = {
  Ethernet = "{974FB098-DE46-45DB-94DA-8D64A3BBCDE5}",
  IPv4 = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}",
  IPv6 = "{85C0CCED-DA8D-4029-924A-A6AB87F62EF8}",
  ICMP = "{7DDD65F2-A316-43B5-A103-368E700E045E}",
  UDP = "{14D7AB53-CC51-47E9-8814-9C06AAE60189}",
  TCP = "{77E462AB-2E42-42EC-9A58-C1A6821D6B31}",
  NetFlow = "{CEF0774D-F1F3-40A6-8987-168BD69D9901}",
  sFlow = "{462919DD-EE84-497C-AC6F-05D1162BCC5B}",
  SYSLOG = "{4323003E-D060-440B-CA26-E146C0C7DB4E}",
  ["NAT-IPFIX"] = "{F15F08A9-F3E0-4722-4D97-31CCF0743E4E}",
  DHCP = "{E1BD4415-DED3-4D81-974A-3E23C8CE6F5B}",
  HSRP = "{169D45A5-F304-434A-820F-C44C3956BA0B}",
  IGMP = "{D3E8D72E-48ED-43F9-1E8C-DD5FED84E830}",
  QUIC = "{4AD3CEC7-3EFE-4FA9-3830-960511542348}",
  BGP = "{B7524296-F14D-4BCA-D302-5760485A133B}",
}

M.session = {
  ["IP flows"] = "{99A78737-4B41-4387-8F31-8077DB917336}",
}

M.alert = {
  ["External IDS"] = "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}",
  ["Blacklist Activity"] = "{5E97C3A3-41DB-4E34-92C3-87C904FAB83E}",
  ["Threshold Crossing"] = "{03AC6B72-FDB7-44C0-9B8C-7A1975C1C5BA}",
  ["Flow Tracker"] = "{18CE5961-38FF-4AEA-BAF8-2019F3A09063}",
  ["System Alerts"] = "{F69C2462-ECEA-45B8-B1CB-F90342D37A4F}",
  ["User Alerts"] = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}",
}

M.resource = {
  ["DNS Resources"] = "{D1E27FF0-6D66-4E57-BB91-99F76BB2143E}",
  ["HTTP URIs"] = "{4EF9DEB9-4332-4867-A667-6A30C5900E9E}",
  ["SSL Certs"] = "{5AEE3F0B-9304-44BE-BBD0-0467052CF468}",
  ["File Hashes"] = "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}",
  ["Intel harvested"] = "{EE1C9F46-0542-4A7E-4C6A-55E2C4689419}",
}

M.fts = {
  ["SSL Certs"] = "{9FEB8ADE-ADBB-49AD-BC68-C6A02F389C71}",
  ["HTTP Headers"] = "{28217924-E7A5-4523-993C-44B52758D5A8}",
  ["DNS Records"] = "{09B305DF-078C-4B9E-8E2F-EA64B7326880}",
}

-- A GUID in upper case, as every registry keys it, or nil for what is none. GUIDs compare in any letter case.
function M.canonical(guid)
  if type(guid) ~= "string" or not find(guid, SHAPE) then return nil end
  return upper(guid)
end

return M
