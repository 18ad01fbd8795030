/** Numbers, sizes and times as people read them, each with its unit. */

const DASH = "–";
const MINUS = "−";

/**
 * A number to so many significant digits, without an exponent where it can be told without.
 * @param {number | null | undefined} value
 */
export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2).replace("-", MINUS);
  if (size >= 1000) return Math.round(value).toLocaleString("en").replace("-", MINUS);
  return String(Number(value.toPrecision(digits))).replace("-", MINUS);
}

/**
 * A large number to three digits, as in 272 k or 1.82 G.
 * @param {number | null | undefined} value
 */
export function count(value) {
  if (value === null || value === undefined) return DASH;
  for (const [unit, size] of /** @type {[string, number][]} */ ([
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ])) {
    if (value >= 0.9995 * size) return `${threeDigits(value / size)} ${unit}`;
  }
  return threeDigits(value);
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [size, unit] = [value, 0];
  while (size >= 1023.5 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${threeDigits(size)} ${units[unit]}`;
}

/**
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || seconds < 0) return DASH;
  if (seconds < 59.5) return `${seconds < 9.95 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.round((minutes % 1440) / 60)} h`;
}

/**
 * A fraction of 1 as a percentage.
 * @param {number | null | undefined} value
 */
export function percent(value, digits = 1) {
  return value === null || value === undefined ? DASH : `${(100 * value).toFixed(digits).replace("-", MINUS)} %`;
}

/**
 * A difference of fractions in percentage points, with its sign and without the unit.
 * @param {number | null | undefined} value
 */
export function points(value, digits = 2) {
  if (value === null || value === undefined) return DASH;
  const rounded = Number((100 * value).toFixed(digits));
  return `${rounded > 0 ? "+" : ""}${Math.abs(rounded) === 0 ? (0).toFixed(digits) : rounded.toFixed(digits)}`.replace(
    "-",
    MINUS,
  );
}

/**
 * An interval of differences in points; an open end is infinite.
 * @param {{low: number | null, high: number | null} | null | undefined} told
 */
export function interval(told, digits = 2) {
  if (!told) return "";
  const low = told.low === null ? `${MINUS}∞` : points(told.low, digits);
  const high = told.high === null ? "∞" : points(told.high, digits);
  return `[${low}, ${high}]`;
}

/**
 * A metric with its unit, by its name: accuracies are fractions of 1.
 * @param {string} name
 * @param {number | null | undefined} value
 */
export function metric(name, value) {
  if (/\/(top\d|accuracy|balanced_accuracy)/.test(name)) return percent(value, 2);
  if (/images_per_second/.test(name)) return `${number(value, 3)} images/s`;
  if (/_share$/.test(name)) return percent(value);
  if (/_percentage$/.test(name)) return `${number(value)} %`;
  if (/_megabytes$/.test(name)) return `${number(value)} MB`;
  return number(value);
}

/**
 * The same for the axis of a plot, whose title names the unit of a speed.
 * @param {string} name
 * @param {number} value
 */
export function tick(name, value) {
  return metric(name, value)
    .replace(/\.0+ %$/, " %")
    .replace(/ images\/s$/, "");
}

/**
 * How a time is told: locally, and in UTC for the tooltip.
 * @param {string} iso
 * @param {string} [zone] for tests; the reader's own where left out
 */
export function time(iso, zone) {
  const date = new Date(iso);
  const local = date.toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "medium", timeZone: zone });
  return { local, utc: `${date.toISOString().slice(0, 19).replace("T", " ")} UTC` };
}

/**
 * Seconds between two times; until now where the second is not there.
 * @param {string} from
 * @param {string | null | undefined} to
 */
export function secondsBetween(from, to, now = Date.now()) {
  return ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000;
}

/** @param {number} value */
function threeDigits(value) {
  return value >= 99.95 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
