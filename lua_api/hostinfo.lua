-- T.host and T.env (spec 4.5, 4.6): the home networks and the configuration, from a plain table of settings:
--   homenets            array of networks: "10.0.0.0/8", "192.168.1.0/255.255.255.0", "fd00::/8", "192.168.1.1"
--   config              path to value, as { ["App>DBRoot"] = "/var/lib/..." }
--   domain_config       the same for the domain
--   configfile, domain_configfile   names of the files they came from
local M = {}

local host = require "offpath.host"
local address = require "offpath.address"
local loglevel = require("offpath.constants").loglevel

local find, lower, match, gmatch = string.find, string.lower, string.match, string.gmatch
local concat, ipairs, pairs, tonumber, tostring, type = table.concat, ipairs, pairs, tonumber, tostring, type

local DBROOT = "/usr/local/var/lib/trisul-probe/domain0/probe0/context0"

-- What scripts read, for a configuration that does not say.
local DEFAULTS = {
  ["App>DBRoot"] = DBROOT,
  ["App>DataDirectory"] = "/usr/local/share/trisul-probe",
  ["App>User"] = "trisul.trisul",
  ["Reassembly>FileExtraction>Enabled"] = "False",
  ["Reassembly>TCPReassembly>Applications>EnableSSLRecordExtraction"] = "False",
}

-- A path as it is looked up: its elements without the blanks around them, in lower case.
local function canonical(path)
  local elements = {}
  for element in gmatch(tostring(path), "[^>]+") do elements[#elements + 1] = lower(match(element, "^%s*(.-)%s*$")) end
  return concat(elements, ">")
end

-- A function from path to text, "" for a miss.
local function reader(...)
  local values = {}
  for _, source in ipairs { ... } do
    for path, value in pairs(source) do values[canonical(path)] = tostring(value) end
  end
  return function(path)
    return values[canonical(path)] or ""
  end
end

-- The networks as ranges of numbers for IPv4 and as prefixes for IPv6. What is no network is logged and left out.
local function parse_networks(list)
  local narrow, wide = {}, {}
  for _, text in ipairs(list) do
    local network = address.parse_network(text)
    if not network then
      host.log(loglevel.WARN, "home network " .. tostring(text) .. " is no network, it is left out")
    elseif network.base then
      narrow[#narrow + 1] = network
    else
      wide[#wide + 1] = network
    end
  end
  return narrow, wide
end

-- Whether a 32-bit number is in one of the networks.
local function number_inside(networks, number)
  for index = 1, #networks do
    local network = networks[index]
    if number - number % network.size == network.base then return true end
  end
  return false
end

local function bytes_inside(networks, bytes)
  for _, network in ipairs(networks) do
    if address.v6_in_network(bytes, network) then return true end
  end
  return false
end

-- The test behind `is_homenet` and `is_homenet_key`: any form of an address; false for what is none.
local function membership(narrow, wide)
  return function(value)
    local number = type(value) == "number" and value or nil
    if type(value) == "string" then
      number = address.dotted_to_number(value) or address.key_to_number(value)
      if not number and (#value == 32 or find(value, ":", 1, true)) then
        local bytes = #wide > 0 and address.v6_bytes(value)
        return bytes and bytes_inside(wide, bytes) or false
      end
      number = number or tonumber(value)
    end
    if not number or not (number >= 0 and number < 4294967296) then return false end
    return number_inside(narrow, number - number % 1)
  end
end

-- The IPv4 networks as an array of { ip, netmask }, numbers, which can be read as `.ip` and `.netmask` too.
local function network_list(narrow)
  local list = {}
  for index, network in ipairs(narrow) do
    local mask = 4294967296 - network.size
    list[index] = { network.base, mask, ip = network.base, netmask = mask }
  end
  return list
end

local function nothing() end

-- The methods of T.host, which are called with a colon.
local function build_host(settings, get_config, effects)
  local narrow, wide = parse_networks(settings.homenets or {})
  local inside = membership(narrow, wide)
  local create_key, broadcast = effects.createkey or nothing, effects.broadcast or nothing
  local T_host = {}

  -- The home networks; a new table each time, as scripts may change theirs.
  function T_host:get_homenets()
    return network_list(narrow)
  end

  -- Whether an address is at home: a 32-bit number, its text, dotted text, key format, IPv6 text.
  function T_host:is_homenet(value)
    return inside(value)
  end

  -- The same for key format.
  T_host.is_homenet_key = T_host.is_homenet

  -- Where configuration files are.
  function T_host:get_configpath()
    return get_config("App>DBRoot") .. "/config"
  end

  -- Where data files are.
  function T_host:get_datapath()
    return get_config("App>DataDirectory")
  end

  -- Gives a key its label before there is traffic for it.
  function T_host:createkey(guid, key, label)
    create_key(guid, key, label)
  end

  -- Configurations are used where they lie: gives the template back.
  function T_host:prepare_config(_, template)
    return template == nil and "" or tostring(template)
  end

  -- Sends a message to the scripts with a channel listener whose id has this class.
  function T_host:broadcast(id, class, text)
    broadcast(tostring(id), tostring(class), tostring(text))
  end

  -- Logs text at a level.
  function T_host:log(level, text)
    host.log(tonumber(level) or loglevel.DEBUG, tostring(text))
  end

  return T_host
end

-- T.host and T.env. `effects` holds the functions `createkey(guid, key, label)` and `broadcast(id, class, text)`;
-- without them, as in workers, the two do nothing.
function M.build(settings, effects)
  local config = settings.config or {}
  local get_config = reader(DEFAULTS, config)
  get_config = reader(DEFAULTS, { ["App>RunStateDirectory"] = get_config("App>DBRoot") .. "/run" }, config)
  local T_env = {
    configfile = settings.configfile or "",
    domain_configfile = settings.domain_configfile or "",
    get_config = get_config,
    get_domain_config = reader(settings.domain_config or {}),
  }
  return build_host(settings, get_config, effects or {}), T_env
end

return M
