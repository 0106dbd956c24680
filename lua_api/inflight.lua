-- What the callbacks of tasks need, by task id, until the tasks are complete.
--
-- Ids go up without end and most are complete soon. One table over all of them would be rehashed again and again, at every
-- insertion when about a power of two are in flight (measured: 8 µs a task instead of 0.4). So ids share pages, which
-- are arrays, and a page is dropped when it is empty. What belongs to a task lies in a page side by side: a table for each
-- task would be as much garbage.

local new_table = require("table.new")

local floor = math.floor

local PAGE, WIDTH = 256, 4

local M = {}

-- Returns put(id, onresult, onerror, data, lease), for ids that go up, with false for a function that is not there; take(id),
-- which gives these four, or nothing when there is none; and how many pages there are.
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
    pages[number], counts[number], last = new_table(PAGE * WIDTH, 0), 0, number
    return pages[number]
  end

  local function put(id, onresult, onerror, data, lease)
    local number = floor(id / PAGE)
    local page = pages[number] or new_page(number)
    local at = (id - number * PAGE) * WIDTH
    page[at + 1], page[at + 2], page[at + 3], page[at + 4] = onresult, onerror, data, lease
    counts[number] = counts[number] + 1
  end

  local function take(id)
    local number = floor(id / PAGE)
    local page = pages[number]
    if not page then return nil end
    local at = (id - number * PAGE) * WIDTH
    local onresult, onerror, data, lease = page[at + 1], page[at + 2], page[at + 3], page[at + 4]
    if not data then return nil end
    page[at + 1], page[at + 2], page[at + 3] = false, false, false
    counts[number] = counts[number] - 1
    if number ~= last then drop_if_empty(number) end
    return onresult, onerror, data, lease
  end

  local function page_count()
    local count = 0
    for _ in pairs(pages) do count = count + 1 end
    return count
  end

  return put, take, page_count
end

return M
