-- Subscribes to what is never emitted, for the benchmark `events`.
TrisulPlugin = { id = { name = "bystander" }, event_monitor = { topics = { "other.*", "**.never" }, onevent = function() end } }
