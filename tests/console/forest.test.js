import assert from "node:assert/strict";
import test from "node:test";
import { at, digitsOf, dots, scaleOf, ticks } from "../../service/console/static/lib/forest.js";

const NONE = { simultaneous: null, anytime: null, interval: null, differences: [] };
/** @param {object} pair @param {object} [more] */
const result = (pair, more) =>
  /** @type {any} */ ({ margin: null, resolution: 0.0025, pairs: [{ ...NONE, ...pair }], ...more });

test("a plot holds no difference, every seed, the interval and the margin", () => {
  const told = result({ differences: [0.01, 0.03], interval: { low: 0.005, high: 0.035 } }, { margin: 0.01 });
  const scale = scaleOf(told, 0, 600);
  for (const value of [0, 0.01, 0.03, 0.005, 0.035, -0.01]) {
    assert.ok(scale.low < value && value < scale.high, String(value));
  }
});

test("a wide interval does not make the dots unreadable, and an open one has no end", () => {
  const scale = scaleOf(result({ differences: [0, 0.01], anytime: { low: -5, high: null } }), 0, 600);
  assert.ok(scale.low > -0.05);
  assert.equal(at(scale, -5), 0);
  assert.equal(at(scale, Number.POSITIVE_INFINITY), 600);
});

test("ticks are round, inside, and no more than fit", () => {
  for (const [high, right] of /** @type {[number, number][]} */ ([
    [0.03, 600],
    [0.0004, 900],
    [0.9, 300],
    [0.07, 260],
  ])) {
    const scale = { low: -high / 3, high, left: 0, right };
    const found = ticks(scale);
    assert.ok(found.length >= 2 && found.length <= 9, `${high}: ${found}`);
    assert.ok(found.every((value) => value >= scale.low - 1e-12 && value <= scale.high + 1e-12));
    assert.ok(found.some((value) => Math.abs(value) < 1e-12));
  }
});

test("seeds of one place are piled, and a pile of many stays in its row", () => {
  const scale = { low: -1, high: 1, left: 0, right: 600 };
  const pile = dots([0.5, 0.5, 0.5, -0.5], scale, 10);
  assert.equal(new Set(pile.map(({ x, y }) => `${x} ${y}`)).size, 4);
  assert.ok(Math.max(...dots(new Array(200).fill(0), scale, 10).map(({ y }) => y)) <= 28);
});

test("digits are as fine as one image", () => {
  assert.equal(digitsOf(result({})), 1);
  assert.equal(digitsOf(result({}, { resolution: 0.0001 })), 2);
});
