/** Where the marks of a forest plot stand: pure, in pixels. As service.comparisons.figure has it. */

/** @typedef {import("../types.js").Result} Result */
/** @typedef {import("../types.js").Interval} Interval */
/** @typedef {{low: number, high: number, left: number, right: number}} Scale */

export const DOT = 3;
const STACK = 18;

/**
 * A scale that holds 0, all dots and 95 % intervals, and others as far as they leave these readable.
 * @param {Result} result
 * @param {number} left
 * @param {number} right
 * @returns {Scale}
 */
export function scaleOf(result, left, right) {
  const values = [0, ...result.pairs.flatMap((pair) => [...pair.differences, ...ends(pair.interval)])];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const reach = Math.max(high - low, 4 * (result.resolution || 0.005));
  const wider = result.pairs.flatMap((pair) => [...ends(pair.simultaneous), ...ends(pair.anytime)]);
  if (result.margin !== null) wider.push(-1.1 * result.margin, 1.1 * result.margin);
  low = Math.min(low, ...wider.map((value) => Math.max(value, low - reach)));
  high = Math.max(high, ...wider.map((value) => Math.min(value, high + reach)));
  const edge = 0.06 * Math.max(high - low, reach);
  return { low: low - edge, high: high + edge, left, right };
}

/** @param {Interval | null} told */
function ends(told) {
  return told === null ? [] : [told.low, told.high].filter((end) => end !== null);
}

/**
 * The place of a difference; what is off the plot stands at its edge.
 * @param {Scale} scale
 * @param {number} value
 */
export function at(scale, value) {
  const inside = Math.min(Math.max(value, scale.low), scale.high);
  return scale.left + ((scale.right - scale.left) * (inside - scale.low)) / (scale.high - scale.low);
}

/**
 * Four to nine round differences, fewer where there is little room.
 * @param {Scale} scale
 */
export function ticks(scale) {
  const most = Math.max(2, Math.min(9, Math.floor((scale.right - scale.left) / 60)));
  const span = scale.high - scale.low;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = power * /** @type {number} */ ([1, 2, 5, 10].find((factor) => span / (power * factor) <= most));
  const [first, last] = [Math.ceil(scale.low / step - 1e-9), Math.floor(scale.high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, index) => step * (first + index));
}

/**
 * A dot for each seed: those of one place are piled downwards, closer where they are many.
 * @param {number[]} values
 * @param {Scale} scale
 * @param {number} y
 * @returns {{x: number, y: number}[]}
 */
export function dots(values, scale, y) {
  /** @type {Map<number, number[]>} */
  const piles = new Map();
  for (const value of values) {
    const x = at(scale, value);
    const place = Math.round(x / (2 * DOT));
    piles.set(place, [...(piles.get(place) ?? []), x]);
  }
  return [...piles.values()].flatMap((pile) => {
    const step = Math.min(2 * DOT, STACK / Math.max(1, pile.length - 1));
    return pile.sort((a, b) => a - b).map((x, place) => ({ x, y: y + place * step }));
  });
}

/** Digits after the point that tell one image. @param {Result} result */
export function digitsOf(result) {
  return (result.resolution ?? 0) >= 0.0005 ? 1 : 2;
}
