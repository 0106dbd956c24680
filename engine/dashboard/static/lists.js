// Tiles, tables and lists. Whatever comes from a capture or a script is set as text, never as markup.

import { bytes, duration, hour, measured, moment, short, whole } from "./format.js";

const KEPT = 50;
const byId = (id) => document.getElementById(id);

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function showEmpty(id, empty) {
  byId(`${id}-empty`).hidden = !empty;
  byId(id).hidden = empty;
}

// ---- tiles

export function showTiles(now) {
  const { totals, rates, tasks, losses } = now;
  const lost = Object.values(losses).reduce((sum, each) => sum + each, 0);
  const pending = tasks.queued + tasks.running;
  const tiles = [
    ["Packets", short(totals.packets), `${short(rates.packets)}/s, ${bytes(totals.bytes)}`],
    ["Events", short(totals.events), `${short(rates.events)}/s`],
    ["Flows", short(totals.flows), ""],
    ["HTTP files", short(totals.files), ""],
    ["Async work", short(pending), `${short(tasks.completed)} done`],
    ["Alerts", short(totals.alerts), `${short(totals.resources)} resources`],
    ["Script errors", short(totals.script_errors), "", totals.script_errors ? "bad" : ""],
    ["Lost", short(lost), "", lost ? "warn" : ""],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value, rest, kind = ""]) => {
    const tile = element("div", "", kind);
    const number = element("dd");
    number.append(element("div", value, "value"), element("div", rest, "rest"));
    tile.append(element("dt", name), number);
    return tile;
  }));
}

// ---- plugins and losses

export function showPlugins(plugins) {
  showEmpty("plugins", !plugins.length);
  document.querySelector("#plugins tbody").replaceChildren(...plugins.map((each) => {
    const row = element("tr");
    const name = element("th", each.script);
    name.scope = "row";
    name.append(" ", element("small", each.block));
    row.append(name, ...[
      [whole(each.calls), !each.calls],
      [whole(each.errors), !each.errors, each.errors],
      [duration(each.slowest), !each.slowest],
      [whole(each.queued), !each.queued],
      [whole(each.running), !each.running],
      [whole(each.completed), !each.completed],
      [whole(each.failed), !each.failed, each.failed],
      [whole(each.rejected), !each.rejected, each.rejected],
      [each.submitted ? duration(each.wait_p99) : "–", !each.submitted],
      [each.submitted ? duration(each.run_p99) : "–", !each.submitted],
    ].map(([text, zero, bad]) => element("td", text, `number${bad ? " bad" : zero ? " zero" : ""}`)));
    return row;
  }));
}

export function showLosses(losses) {
  const names = Object.keys(losses).sort();
  showEmpty("losses", !names.length);
  byId("losses").replaceChildren(...names.map((name) => {
    const row = element("div");
    row.append(element("dt", name.replaceAll("_", " ")), element("dd", whole(losses[name])));
    return row;
  }));
}

// ---- alerts and log lines

const notes = { alert: [], log: [] };
const lists = { alert: "alerts", log: "logs" };

export function resetNotes(alerts, logs) {
  notes.alert = alerts;
  notes.log = logs;
  showNotes("alert");
  showNotes("log");
}

export function addNotes(found) {
  for (const kind of Object.keys(notes)) {
    const fresh = found.filter((each) => each.kind === kind);
    if (!fresh.length) continue;
    notes[kind] = [...notes[kind], ...fresh].slice(-KEPT);
    showNotes(kind);
  }
}

function showNotes(kind) {
  const shown = notes[kind].toReversed();
  showEmpty(lists[kind], !shown.length);
  byId(`${lists[kind]}-count`).textContent = shown.length ? `the last ${shown.length}` : "";
  byId(lists[kind]).replaceChildren(...shown.map((each) => {
    const line = element("li");
    const time = element("time", hour(each.time));
    time.title = `${moment(each.time)} UTC`;
    const text = element("div", "", "text");
    if (each.level) {
      const level = element("span", each.level === "WARN" ? "warning" : each.level.toLowerCase(), "level");
      level.dataset.level = each.level;
      text.append(level, " ");
    }
    text.append(each.text);
    const from = [each.script, each.flow, each.kind === "alert" ? `priority ${each.priority}` : ""];
    line.append(time, text, element("div", from.filter(Boolean).join(" · "), "from"));
    return line;
  }));
}

// ---- toppers

let found = null;

export function showWindow(window) {
  found = window;
  const groups = window?.groups.filter((each) => each.meters.length) ?? [];
  showEmpty("toppers", !groups.length);
  byId("group-choice").hidden = byId("meter-choice").hidden = !groups.length;
  byId("window").textContent = window ? `${moment(window.start)} to ${hour(window.end)} UTC` : "";
  if (groups.length) {
    choose(byId("group"), groups.map((each) => [each.guid, each.name]));
    showGroup();
  }
}

function showGroup() {
  const group = found.groups.find((each) => each.guid === byId("group").value);
  choose(byId("meter"), group.meters.map((each) => [`${each.number}${each.smallest ? " least" : ""}`, `${each.name}${each.smallest ? ", smallest" : ""}`]));
  showMeter();
}

function showMeter() {
  const group = found.groups.find((each) => each.guid === byId("group").value);
  const meter = group.meters[byId("meter").selectedIndex];
  const most = Math.max(...meter.items.map((each) => each.value ?? 0), 0);
  byId("toppers").replaceChildren(...meter.items.map((each) => {
    const line = element("li");
    const fill = element("span", "", "fill");
    fill.style.width = `${most > 0 ? Math.max((each.value ?? 0) / most, 0) * 100 : 0}%`;
    const key = element("span", each.label || each.key, "key");
    if (each.label && each.label !== each.key) key.append(" ", element("small", each.key));
    line.append(fill, key, element("span", measured(each.value, meter.units), "value"));
    return line;
  }));
}

/** Fill a select, and leave what was chosen if it is still there. */
function choose(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

byId("group").addEventListener("change", showGroup);
byId("meter").addEventListener("change", showMeter);
