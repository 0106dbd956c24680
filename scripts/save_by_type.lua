-- Saves images and documents into a folder per content type, and records the SHA-256 of each as a resource of the
-- File Hashes group.
-- offpath run scripts/save_by_type.lua --capture demo/demo.pcap --args demo/by-type --records demo/records.jsonl
local FILE_HASHES = "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}"

local WANTED = { ["image/png"] = "images", ["application/pdf"] = "documents", ["text/html"] = "pages" }

local root

-- The folder for a response, or nil when its type is not wanted. Parameters such as "; charset=utf-8" don't count.
local function folder_of(response)
  local content_type = (response:get_value("Content-Type") or ""):lower():match("^[^;%s]*")
  return WANTED[content_type]
end

TrisulPlugin = {
  id = { name = "save_by_type", description = "Saves files by content type, with their SHA-256" },

  onload = function()
    root = T.args ~= "" and T.args or "by-type"
    for _, folder in pairs(WANTED) do os.execute(("mkdir -p '%s/%s'"):format(root, folder)) end
  end,

  filex_monitor = {
    -- Asked for the head of the request first, then for that of the response.
    filter = function(engine, timestamp, flow, head)
      return head:is_request() or folder_of(head) ~= nil
    end,

    onfile_http = function(engine, timestamp, flow, path, request, response, length, is_partial)
      local folder = folder_of(response)
      if length == 0 or not folder then return end
      local name = path:match("[^/]+$")
      local saved = ("%s/%s/%s"):format(root, folder, name)
      if is_partial then -- parts come in order, and operations on one path keep theirs
        local whole = saved:gsub("%.%d+%.part$", "")
        T.async:cat(path, whole)
        return
      end
      T.async:copy(path, saved)
      T.async:schedule({
        data = path,
        onexecute = function(file)
          local pipe = io.popen("sha256sum '" .. file .. "'")
          local sum = pipe:read("*a"):sub(1, 64)
          pipe:close()
          return sum
        end,
        onresult = function(later, _, sum)
          later:add_resource(FILE_HASHES, flow:id(), "SHA256:" .. sum, name)
        end,
      })
    end,
  },
}
