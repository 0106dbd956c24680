// The page: one stream of server-sent events in, and what it shows of them.

import { Chart } from "./charts.js";
import { duration, short } from "./format.js";
import { addNotes, resetNotes, showLosses, showPlugins, showTiles, showWindow } from "./lists.js";

const byId = (id) => document.getElementById(id);
const STATES = { reading: "reading", over: "source over", waiting: "running", lost: "no connection", connecting: "connecting" };

const charts = {
  rate: new Chart(byId("rate"), short),
  lag: new Chart(byId("lag"), duration),
  queue: new Chart(byId("queue"), short),
};

const parts = {
  rate: (point) => ({ packets: point.rates.packets, events: point.rates.events }),
  lag: (point) => ({ median: point.lag.median, worst: point.lag.worst, "p99 of a minute": point.lag.p99 }),
  queue: (point) => point.queues,
};

function showState(state) {
  byId("state").dataset.state = state;
  byId("state").textContent = STATES[state] ?? state;
}

function showNow(now) {
  showState(now.state);
  byId("uptime").textContent = `up ${duration(now.uptime)}`;
  const troubles = now.troubles.filter((each) => now.state !== "over" || !each.startsWith("the source"));
  byId("troubles").hidden = !troubles.length;
  byId("troubles").textContent = troubles.join("; ");
  showTiles(now);
  showPlugins(now.plugins);
  showLosses(now.losses);
  const queues = Object.keys(now.queues).length > 0;
  byId("queue").hidden = !queues;
  byId("queue-empty").hidden = queues;
}

function chartPoint(name, point) {
  return { time: point.time, values: parts[name](point) };
}

function listen() {
  const events = new EventSource("events");
  const on = (name, take) => events.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("hello", (hello) => {
    byId("source").textContent = hello.title;
    byId("version").textContent = hello.version ? `offpath ${hello.version}` : "";
    byId("api").hidden = !hello.asks;
    document.title = hello.title ? `${hello.title} – Offpath` : "Offpath";
    showNow(hello.now);
    for (const [name, chart] of Object.entries(charts)) chart.reset(hello.history.map((each) => chartPoint(name, each)));
    resetNotes(hello.alerts, hello.logs);
    showWindow(hello.window);
    document.documentElement.dataset.ready = "yes";
  });
  on("tick", (now) => {
    showNow(now);
    for (const [name, chart] of Object.entries(charts)) chart.add(chartPoint(name, now));
  });
  on("notes", ({ notes }) => addNotes(notes));
  on("window", showWindow);
  // A browser tries again by itself, but not after an answer that is none of a stream.
  events.onerror = () => {
    showState("lost");
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

listen();
