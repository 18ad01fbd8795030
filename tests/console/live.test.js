import assert from "node:assert/strict";
import test from "node:test";
import { aligned, grouped, joined, lastStep } from "../../service/console/static/lib/curves.js";
import { found, tail } from "../../service/console/static/lib/log.js";
import { ranksOf } from "../../service/console/static/lib/ranks.js";
import { metricNames, together, unequal } from "../../service/console/static/lib/side-by-side.js";
import { differences, leaves, overrides } from "../../service/console/static/lib/spec.js";
import { eventParser } from "../../service/console/static/lib/sse-parser.js";

/** @param {string} name @param {number[]} steps @param {(number | null)[]} values */
const curve = (name, steps, values) => ({ name, steps, values, times: steps.map(() => 0) });

test("a stream may be cut anywhere", () => {
  const text = ': heartbeat\n\nid: 7\nevent: move\ndata: {"a":\ndata: 1}\n\r\ndata\nid: 8\r\n\r\n';
  for (let size = 1; size <= text.length; size += 1) {
    const parse = eventParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parse(text.slice(at, at + size)));
    assert.deepEqual(
      events,
      [
        { type: "move", id: "7", data: '{"a":\n1}' },
        { type: "message", id: "8", data: "" },
      ],
      `pieces of ${size}`,
    );
  }
});

test("what was read twice is there once, with its newest value", () => {
  const known = [curve("train/loss", [1, 2, 3], [3, 2, 1])];
  const now = joined(known, [curve("train/loss", [3, 4], [9, 8]), curve("val/loss", [4], [7])]);
  assert.deepEqual(
    now.map(({ name, steps, values }) => [name, steps, values]),
    [
      ["train/loss", [1, 2, 3, 4], [3, 2, 9, 8]],
      ["val/loss", [4], [7]],
    ],
  );
  assert.equal(lastStep(now), 4);
  assert.equal(lastStep([]), -1);
});

test("curves of one unit share a plot, the loss first, and a single point is no curve", () => {
  const found = grouped([
    curve("lr", [1, 2], [1, 1]),
    curve("val/top1", [1, 2], [0, 1]),
    curve("train/loss", [1, 2], [1, 1]),
    curve("val/loss", [1, 2], [1, 1]),
    curve("test/top1", [2], [1]),
  ]);
  assert.deepEqual(
    found.map(({ title, curves }) => [title, curves.map(({ name }) => name)]),
    [
      ["loss", ["train/loss", "val/loss"]],
      ["top1", ["val/top1"]],
      ["lr", ["lr"]],
    ],
  );
});

test("a gap is drawn over, and a value that was not finite is a gap", () => {
  const data = aligned([curve("a", [1, 3], [1, null]), curve("b", [2], [5])]);
  assert.deepEqual(data, [
    [1, 2, 3],
    [1, undefined, null],
    [undefined, 5, undefined],
  ]);
});

test("of a long log the end is kept", () => {
  assert.deepEqual(tail(["a", "b"], ["c"], 4, 2), { lines: ["b", "c"], dropped: 5 });
  assert.deepEqual(found(["One", "two"], " ONE "), ["One"]);
});

test("specs are told by their leaves, and by what differs", () => {
  assert.deepEqual(leaves({ a: { b: 1, c: {} }, d: [1] }), [
    ["a.b", 1],
    ["a.c", {}],
    ["d", [1]],
  ]);
  assert.deepEqual(differences({ a: 1, b: { c: 2 } }, { a: 1, b: { c: 3 }, d: 4 }), [
    { path: "b.c", before: 2, after: 3 },
    { path: "d", before: undefined, after: 4 },
  ]);
});

test("changes are typed as lines", () => {
  assert.deepEqual(overrides('train.epochs = 3\n\n model.attention=none\ntrain.optimizer = {"lr": 0.1}'), {
    "train.epochs": 3,
    "model.attention": "none",
    "train.optimizer": { lr: 0.1 },
  });
  assert.throws(() => overrides("nonsense"), /path = value/);
});

test("each worker has a log", () => {
  assert.equal(ranksOf({ spec: {} }), 1);
  assert.equal(ranksOf({ spec: { resources: { workers: 2 } } }), 2);
  assert.equal(ranksOf({ spec: { resources: { workers: { min: 1, max: 4 } } } }), 4);
});

test("side by side stands what differs, but for the name", () => {
  /** @param {string} id @param {object} spec */
  const one = (id, spec) => /** @type {any} */ ({ id, name: id, spec, metrics: { [`${id}/loss`]: 1 } });
  const rows = [one("a", { name: "a", lr: 1, same: 2 }), one("b", { name: "b", lr: 3, same: 2, more: true })];
  assert.deepEqual(unequal(rows), [
    { path: "lr", values: ["1", "3"] },
    { path: "more", values: ["–", "true"] },
  ]);
  assert.deepEqual(metricNames(rows), ["a/loss", "b/loss"]);
  const plots = together(rows, [
    [curve("val/loss", [1, 2], [1, 1])],
    [curve("val/loss", [1, 2], [2, 2]), curve("val/top1", [1, 2], [0, 1])],
  ]);
  assert.deepEqual(
    plots.map(({ title, curves }) => [title, curves.map(({ label }) => label)]),
    [
      ["val/top1", ["b b"]],
      ["val/loss", ["a a", "b b"]],
    ],
  );
});
