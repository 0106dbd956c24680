-- A plugin for a service: it hears of orders, writes each to a journal off path, and alerts on large ones.
-- python scripts/orders_service.py
local USER_ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"

local LARGE = 1000

TrisulPlugin = {
  id = { name = "orders", description = "Journals orders and alerts on large ones" },

  event_monitor = {
    topics = { "orders.*" },

    onevent = function(engine, timestamp, topic, order)
      T.async:schedule({
        data = ("%d %s %d %.2f\n"):format(timestamp, topic, order.id, order.total),
        onexecute = function(line)
          local journal = assert(io.open("orders.log", "a"))
          journal:write(line)
          journal:close()
        end,
        onerror = function(_, line, message) T.logerror("not in the journal: " .. line .. message) end,
      })
      if order.total >= LARGE then
        local message = ("order %d is worth %.2f"):format(order.id, order.total)
        engine:add_alert(USER_ALERTS, nil, "large-order", 2, message)
      end
    end,
  },
}
