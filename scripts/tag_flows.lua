-- Tags flows by how they ended and by how much they carried; single packets without an answer are not kept.
-- offpath run scripts/tag_flows.lua --capture FILE --records out.jsonl
local TIMED_OUT, SEEN_RST = 0x0100, 0x0080
local LARGE = 1e6

TrisulPlugin = {
  id = { name = "Tag flows", description = "Tags flows by state and size" },

  sg_monitor = {
    flushfilter = function(_, flow) return flow:az_packets() + flow:za_packets() > 1 end,

    onflush = function(_, flow)
      local state = flow:state()
      if bit.band(state, SEEN_RST) ~= 0 then
        flow:add_tag("reset")
      elseif bit.band(state, TIMED_OUT) ~= 0 then
        flow:add_tag("silent")
      end
      if flow:az_bytes() + flow:za_bytes() > LARGE then flow:add_tag("large") end
    end,
  },
}
