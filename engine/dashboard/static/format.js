// Numbers, times and texts as people read them.

const UNITS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A number in three digits with its thousand: 812, 1.23k, 45.6M. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  for (const [unit, sign] of UNITS) {
    if (size >= unit * 0.9995) return digits(value / unit) + sign;
  }
  return Number.isInteger(value) ? String(value) : digits(value);
}

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

/** A whole number with its thousands apart. */
export function whole(value) {
  return value.toLocaleString("en-US");
}

/** Bytes in decimal units. */
export function bytes(value) {
  return `${short(value)}B`.replace(/([0-9])B$/, "$1 B").replace(/([kMGT])B$/, " $1B");
}

/** Seconds as µs, ms, s or min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.0009995) return `${Math.max(Math.round(seconds * 1e6), 1)} µs`;
  if (seconds < 0.9995) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 119.5) return `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A value of a meter with its units. */
export function measured(value, units) {
  return units === "bytes" || units === "Bytes" ? bytes(value) : `${short(value)}${units ? ` ${units}` : ""}`;
}

/** A time of the stream, which may be of any year, in UTC. */
export function moment(seconds) {
  const time = new Date(seconds * 1000);
  return Number.isNaN(time.getTime()) ? "" : time.toISOString().slice(0, 19).replace("T", " ");
}

/** Only the time of the day. */
export function hour(seconds) {
  return moment(seconds).slice(11);
}
