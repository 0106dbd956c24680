-- What the callbacks of tasks need, by task id, until the tasks are complete.
--
-- Ids go up without end and most are complete soon. One table over all of them would be rehashed again and again, at every
-- insertion when about a power of two are in flight (measured: 8 µs a task instead of 0.4). So ids share pages, which
-- are arrays, and a page is dropped when it is empty.

local new_table = require("table.new")

local floor = math.floor

local PAGE = 256

local M = {}

-- Returns put(id, entry), for ids that go up; take(id): the entry, or nil when there is none; and how many pages there are.
function M.new()
  local pages, counts = {}, {}
  local last -- the page that entries are put on

  local function drop_if_empty(number)
    if counts[number] == 0 then
      pages[number], counts[number] = nil, nil
    end
  end

  local function new_page(number)
    if last then drop_if_empty(last) end
    pages[number], counts[number], last = new_table(PAGE, 0), 0, number
    return pages[number]
  end

  local function put(id, entry)
    local number = floor(id / PAGE)
    local page = pages[number] or new_page(number)
    page[id - number * PAGE + 1] = entry
    counts[number] = counts[number] + 1
  end

  local function take(id)
    local number = floor(id / PAGE)
    local page = pages[number]
    if not page then return nil end
    local at = id - number * PAGE + 1
    local entry = page[at]
    if entry == nil then return nil end
    page[at] = nil
    counts[number] = counts[number] - 1
    if number ~= last then drop_if_empty(number) end
    return entry
  end

  local function page_count()
    local count = 0
    for _ in pairs(pages) do count = count + 1 end
    return count
  end

  return put, take, page_count
end

return M
