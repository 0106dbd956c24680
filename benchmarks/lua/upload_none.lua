-- Hears of uploads and does nothing with them.
TrisulPlugin = {
  id = { name = "uploads none" },
  event_monitor = { topics = { "uploads.stored" }, onevent = function() end },
}
