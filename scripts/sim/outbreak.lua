-- A worm among the hosts of an office. A host that has it gives it to others over HTTP, and these do likewise some time after they
-- have fetched it. Ordinary downloads go on meanwhile. Whoever is named by an alert on a file, as the giver or the taker, is cut off.
-- With scripts/malware_hash.lua beside it that happens; alone, nobody looks. See outbreak.py.
local IDS_ALERTS = "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}"
local USER_ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"

local HOSTS = 100
local CONTACT, INCUBATION, REACTION = 60, 60, 120 -- seconds on average: between attempts, until a taker attempts, from alert to cut
local DOWNLOADS = 2 -- seconds between two ordinary ones
local WORM = ("offpath outbreak sample\n"):rep(800)

local infected, isolated = {}, {} -- by address
local counts = { infected = 0, isolated = 0 }
local chance = {} -- streams of random numbers

local function any_host() return "10.0.0." .. chance.hosts:integer(1, HOSTS) end

local attempt_soon

local function infect(host)
  if infected[host] or isolated[host] then return end
  infected[host] = true
  counts.infected = counts.infected + 1
  attempt_soon(host)
end

local function attempt(host)
  if isolated[host] then return end
  local taker = any_host()
  if taker ~= host and not isolated[taker] then
    T.sim.http({ client = taker, server = host, uri = "/update.bin", body = WORM })
    T.sim.after(chance.incubations:exponential(INCUBATION), function() infect(taker) end)
  end
  attempt_soon(host)
end

function attempt_soon(host)
  T.sim.after(chance.contacts:exponential(CONTACT), function() attempt(host) end)
end

local function isolate(host)
  if isolated[host] then return end
  isolated[host] = true
  counts.isolated = counts.isolated + 1
end

local function download()
  local page = ("page %d\n"):format(chance.pages:integer(1, 1000000)):rep(200)
  T.sim.http({ client = any_host(), server = "198.51.100.7", uri = "/page.html", content_type = "text/html", body = page })
end

local function tell(engine)
  engine:add_alert(USER_ALERTS, nil, "count", 1, ("%d %d"):format(counts.infected, counts.isolated))
end

TrisulPlugin = {
  id = { name = "outbreak", description = "A worm, and what becomes of who is named by an alert" },

  onload = function()
    for _, name in ipairs({ "hosts", "contacts", "incubations", "reactions", "downloads", "pages" }) do
      chance[name] = T.sim.random(name)
    end
    T.sim.every(function() return chance.downloads:exponential(DOWNLOADS) end, download)
    T.sim.every(10, tell)
    for number = 1, 5 do infect("10.0.0." .. number) end
  end,

  alert_monitor = {
    alert_guid = IDS_ALERTS,
    onnewalert = function(_, alert)
      local flow = alert:flow()
      for _, host in ipairs({ flow:ipa_readable(), flow:ipz_readable() }) do
        T.sim.after(chance.reactions:exponential(REACTION), function() isolate(host) end)
      end
    end,
  },
}
