/** Histories of metrics: joined as they grow, grouped into plots, and aligned for one. */

/** @typedef {import("../types.js").Curve} Curve */

/**
 * What is known, with what was read since: a step that was read twice has its newest value.
 * @param {Curve[]} known
 * @param {Curve[]} read
 * @returns {Curve[]}
 */
export function joined(known, read) {
  const byName = new Map(known.map((curve) => [curve.name, curve]));
  for (const curve of read) {
    const old = byName.get(curve.name);
    const first = curve.steps[0] ?? Number.POSITIVE_INFINITY;
    const kept = old ? old.steps.filter((step) => step < first).length : 0;
    byName.set(curve.name, {
      name: curve.name,
      steps: [...(old?.steps.slice(0, kept) ?? []), ...curve.steps],
      values: [...(old?.values.slice(0, kept) ?? []), ...curve.values],
      times: [...(old?.times.slice(0, kept) ?? []), ...curve.times],
    });
  }
  return [...byName.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** The last step of all. @param {Curve[]} curves */
export function lastStep(curves) {
  return Math.max(-1, ...curves.map(({ steps }) => steps.at(-1) ?? -1));
}

const FIRST = ["loss", "top1"];

/**
 * One plot for what has the same unit: train/loss, val/loss and test/loss are all `loss`. Single points are no curve.
 * @param {Curve[]} curves
 * @returns {{title: string, curves: Curve[]}[]}
 */
export function grouped(curves) {
  const plots = new Map(/** @type {[string, Curve[]][]} */ ([]));
  for (const curve of curves) {
    if (curve.steps.length < 2) continue;
    const title = curve.name.split("/").at(-1) ?? curve.name;
    plots.set(title, [...(plots.get(title) ?? []), curve]);
  }
  const rank = (/** @type {string} */ title) => (FIRST.includes(title) ? FIRST.indexOf(title) : FIRST.length);
  return [...plots]
    .map(([title, of]) => ({ title, curves: of }))
    .sort((a, b) => rank(a.title) - rank(b.title) || a.title.localeCompare(b.title));
}

/**
 * One column of steps and one of values for each curve, as uPlot takes them; null where a curve has no value.
 * @param {Curve[]} curves
 * @returns {[number[], ...(number | null | undefined)[][]]}
 */
export function aligned(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const places = new Map(steps.map((step, place) => [step, place]));
  const columns = curves.map((curve) => {
    // undefined where it was not measured, so that the line goes on; null where it was not finite, so that it breaks
    const column = /** @type {(number | null | undefined)[]} */ (new Array(steps.length).fill(undefined));
    curve.steps.forEach((step, index) => {
      column[/** @type {number} */ (places.get(step))] = curve.values[index];
    });
    return column;
  });
  return [steps, ...columns];
}
