/** Several experiments beside each other: what differs in their specs, and their curves on common plots. */

import { grouped } from "./curves.js";
import { leaf, leaves } from "./spec.js";
import { plainLine } from "./text.js";

/** @typedef {import("../types.js").Experiment} Experiment */
/** @typedef {import("../types.js").Curve} Curve */

export const MOST = 8;

/**
 * The fields of the specs that are not the same in all, each with its value in every experiment.
 * @param {Experiment[]} experiments
 * @returns {{path: string, values: string[]}[]}
 */
export function unequal(experiments) {
  const specs = experiments.map(({ spec }) => new Map(leaves(spec)));
  const paths = [...new Set(specs.flatMap((spec) => [...spec.keys()]))].filter((path) => path !== "name").sort();
  return paths
    .map((path) => ({ path, values: specs.map((spec) => leaf(spec.get(path))) }))
    .filter(({ values }) => new Set(values).size > 1);
}

/** The metrics that any of them has. @param {Experiment[]} experiments */
export function metricNames(experiments) {
  return [...new Set(experiments.flatMap(({ metrics }) => Object.keys(metrics)))].sort();
}

/**
 * One plot for each metric, with one curve for each experiment that has it.
 * @param {Experiment[]} experiments
 * @param {Curve[][]} curves of each experiment
 * @returns {{title: string, curves: (Curve & {label: string})[]}[]}
 */
export function together(experiments, curves) {
  const names = [
    ...new Set(curves.flatMap((of) => grouped(of).flatMap((plot) => plot.curves.map(({ name }) => name)))),
  ];
  return names
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map((title) => ({
      title,
      curves: experiments.flatMap((one, index) =>
        curves[index]
          .filter(({ name }) => name === title)
          .map((curve) => ({ ...curve, label: `${plainLine(one.name)} ${one.id}` })),
      ),
    }));
}

/** @param {string} name */
function rank(name) {
  const place = ["val/top1", "val/loss", "train/loss"].indexOf(name);
  return place < 0 ? 3 : place;
}
