// Line charts over the last minutes: uPlot with this page's colours, which follow light and dark.
/* global uPlot */

const HEIGHT = 180;
const KEPT = 300;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A chart in an element. `format` writes values; series come and go by their names. */
export class Chart {
  constructor(element, format) {
    this.element = element;
    this.format = format;
    this.points = [];
    this.names = [];
    this.plot = null;
    new ResizeObserver(() => this.resize()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
  }

  /** Begin anew with points, each `{time, values: {name: value}}`. */
  reset(points) {
    this.points = points.slice(-KEPT);
    this.draw();
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > KEPT) this.points.shift();
    this.draw();
  }

  draw() {
    const names = [...new Set(this.points.flatMap((each) => Object.keys(each.values)))];
    if (!this.plot || names.join("\n") !== this.names.join("\n")) {
      this.names = names;
      this.build();
      return;
    }
    this.plot.setData(this.data());
  }

  data() {
    const times = this.points.map((each) => each.time);
    return [times, ...this.names.map((name) => this.points.map((each) => each.values[name] ?? null))];
  }

  build() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.names.length || !this.element.clientWidth) return;
    const quiet = colour("--quiet");
    const axis = { stroke: quiet, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.element.clientWidth,
      height: HEIGHT,
      legend: { live: true },
      cursor: { y: false, points: { size: 6 } },
      scales: {
        x: { range: (_, least, most) => (least === null ? [0, 1] : [Math.min(least, most - 60), most]) },
        y: { range: (_, least, most) => [0, most > 0 ? most * 1.1 : 1] },
      },
      axes: [
        { ...axis, size: 28, space: 70, values: (_, splits) => splits.map(clock) },
        { ...axis, size: 58, values: (_, splits) => splits.map((each) => (each === null ? "" : plain(this.format(each)))) },
      ],
      series: [
        { label: "time", value: (_, each) => (each === null ? "" : clock(each)) },
        ...this.names.map((name, at) => ({
          label: name,
          stroke: colour(`--series-${(at % 6) + 1}`),
          width: 2,
          dash: at >= 6 ? [6, 4] : undefined,
          points: { show: this.points.length < 2 },
          value: (_, each) => this.format(each ?? this.last(name)),
        })),
      ],
    }, this.data(), this.element);
  }

  last(name) {
    return this.points.at(-1)?.values[name] ?? null;
  }

  resize() {
    const width = this.element.clientWidth;
    if (!this.plot) this.build();
    else if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }
}

/** Without zeros that say nothing on an axis. */
function plain(text) {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}
