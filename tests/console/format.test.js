import assert from "node:assert/strict";
import test from "node:test";
import * as format from "../../service/console/static/lib/format.js";

test("numbers keep what matters of them", () => {
  assert.equal(format.number(0.12345), "0.1235");
  assert.equal(format.number(-0.5), "−0.5");
  assert.equal(format.number(12345.6), "12,346");
  assert.equal(format.number(0.00001), "1.00e−5");
  assert.equal(format.number(null), "–");
  assert.equal(format.number(Number.NaN), "–");
});

test("counts and sizes have their units", () => {
  assert.equal(format.count(272_474), "272 k");
  assert.equal(format.count(1_818_000_000), "1.82 G");
  assert.equal(format.bytes(1023), "1023 B");
  assert.equal(format.bytes(1024 * 1023.9), "1 MiB");
  assert.equal(format.bytes(1.5 * 2 ** 30), "1.5 GiB");
});

test("durations carry over", () => {
  assert.equal(format.duration(3.21), "3.2 s");
  assert.equal(format.duration(59.7), "1 min");
  assert.equal(format.duration(3600 + 59.6 * 60), "2 h 0 min");
  assert.equal(format.duration(3 * 86400), "3 d 0 h");
});

test("a difference has its sign, and zero has none", () => {
  assert.equal(format.points(0.0123), "+1.23");
  assert.equal(format.points(-0.0123), "−1.23");
  assert.equal(format.points(-0.000001), "0.00");
  assert.equal(format.interval({ low: null, high: 0.01 }), "[−∞, +1.00]");
});

test("metrics are told with the unit of their name", () => {
  assert.equal(format.metric("val/top1", 0.91234), "91.23 %");
  assert.equal(format.metric("train/loss", 0.5), "0.5");
  assert.equal(format.metric("data_wait_share", 0.004), "0.4 %");
  assert.equal(format.metric("system/cpu_utilization_percentage", 99.5), "99.5 %");
  assert.equal(format.metric("system/system_memory_usage_megabytes", 7192), "7,192 MB");
  assert.equal(format.metric("images_per_second", 374.2), "374 images/s");
});

test("a time is local, and UTC beside it", () => {
  const told = format.time("2026-03-01T23:30:00Z", "Asia/Tokyo");
  assert.deepEqual(told, { local: "2026-03-02 08:30:00", utc: "2026-03-01 23:30:00 UTC" });
});

test("an axis has room for its ticks", () => {
  assert.equal(format.tick("/top1", 0.8), "80 %");
  assert.equal(format.tick("/top1", 0.805), "80.50 %");
  assert.equal(format.tick("/images_per_second", 374), "374");
});
