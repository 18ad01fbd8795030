import { bytes, count, duration, metric, number, percent } from "../lib/format.js";
import { html } from "../lib/html.js";
import { leaf } from "../lib/spec.js";
import { plainLine } from "../lib/text.js";

/** How each fact of a summary is told; the others as they are. */
const TOLD = /** @type {Record<string, (value: any) => string>} */ ({
  parameters: count,
  macs: (value) => `${count(value)} multiply-adds an image`,
  images_per_second: (value) => `${number(value, 3)} images/s`,
  data_wait_share: (value) => percent(value),
  model_flops_utilisation: (value) => percent(value),
  peak_memory_bytes: bytes,
  wall_seconds: duration,
  train_images: (value) => `${number(value)} images`,
  val_images: (value) => `${number(value)} images`,
  test_images: (value) => `${number(value)} images`,
});

/** The last values of val and test, and of all other metrics. @param {{metrics: Record<string, number>}} props */
export function Metrics({ metrics }) {
  const names = Object.keys(metrics).sort();
  if (names.length === 0)
    return html`<p class="soft">No metric yet: val is measured after each epoch, test at the end.</p>`;
  return html`<dl class="facts">${names.map((name) => fact(name, metric(name, metrics[name])))}</dl>`;
}

/** What it cost. @param {{summary: Record<string, unknown>}} props */
export function Cost({ summary }) {
  const names = Object.keys(summary).filter((name) => summary[name] !== null && summary[name] !== undefined);
  if (names.length === 0) return html`<p class="soft">Parameters, time and memory are told once it has ended.</p>`;
  return html`<dl class="facts">${names.map((name) => fact(name.replaceAll("_", " "), (TOLD[name] ?? leaf)(summary[name])))}</dl>`;
}

/**
 * @param {string} name
 * @param {string} value
 */
function fact(name, value) {
  return html`<div><dt>${plainLine(name)}</dt><dd>${plainLine(value)}</dd></div>`;
}
