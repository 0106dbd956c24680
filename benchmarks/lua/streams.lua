-- Has every TCP connection put in order, and looks at nothing.
TrisulPlugin = {
  id = { name = "Streams", description = "Takes all streams" },
  reassembly_handler = {
    onpayload = function(engine, time, flow, direction, position, data) end,
  },
}
