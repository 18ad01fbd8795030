import { bytes, duration, percent, secondsBetween } from "../lib/format.js";
import { html } from "../lib/html.js";
import { toHash } from "../lib/route.js";
import { plainLine } from "../lib/text.js";
import { Progress } from "./Progress.js";
import { State } from "./State.js";
import { Time } from "./Time.js";
import { Why } from "./Why.js";

/** @typedef {import("../types.js").Experiment} Experiment */

/** What stands in each column. */
const CELLS = /** @type {Record<string, (row: Experiment) => unknown>} */ ({
  name: (row) =>
    html`<a href=${toHash(["experiments", row.id])}>${plainLine(row.name)}</a> <span class="soft id">${row.id}</span>`,
  state: (row) => html`<${State} state=${row.state} /> <${Why} experiment=${row} />`,
  progress: (row) => html`<${Progress} experiment=${row} />`,
  val: (row) => percent(row.metrics["val/top1"]),
  test: (row) => percent(row.metrics["test/top1"]),
  created: (row) => html`<${Time} at=${row.created_at} />`,
  started: (row) => (row.started_at ? html`<${Time} at=${row.started_at} />` : "–"),
  ended: (row) => (row.ended_at ? html`<${Time} at=${row.ended_at} />` : "–"),
  duration: (row) => (row.started_at ? duration(secondsBetween(row.started_at, row.ended_at)) : "–"),
  project: (row) => plainLine(row.project),
  owner: (row) => plainLine(row.owner),
  priority: (row) => String(row.priority),
  tags: (row) =>
    Object.entries(row.tags).map(
      ([key, value]) => html`<span class="tag">${plainLine(value ? `${key}: ${value}` : key)}</span> `,
    ),
  size: (row) => (row.files.measured_at ? bytes(row.files.bytes) : "–"),
});

/**
 * @param {{experiment: Experiment, columns: {name: string, words: string}[], selected: boolean, toggle: () => void}} props
 */
export function ExperimentRow({ experiment, columns, selected, toggle }) {
  return html`
    <tr class=${selected ? "selected" : ""}>
      <td class="check">
        <input type="checkbox" checked=${selected} onChange=${toggle} aria-label=${`Select ${plainLine(experiment.name)} ${experiment.id}`} />
      </td>
      ${columns.map(({ name, words }) => cell(name, words, CELLS[name](experiment)))}
    </tr>
  `;
}

/**
 * A cell; on a phone it bears its column's name, and is left out where there is nothing in it.
 * @param {string} name
 * @param {string} words
 * @param {unknown} value
 */
function cell(name, words, value) {
  return html`<td class=${value === "–" ? `c-${name} none` : `c-${name}`} data-label=${words}>${value}</td>`;
}
