import { Plot } from "../components/Plot.js";
import { Problem } from "../components/Problem.js";
import { State } from "../components/State.js";
import { get } from "../lib/api.js";
import { count, duration, metric, secondsBetween } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { route, toHash } from "../lib/route.js";
import { MOST, metricNames, together, unequal } from "../lib/side-by-side.js";
import { plainLine } from "../lib/text.js";
import { useTitle } from "../lib/title.js";
import { useMemo } from "../vendor/hooks.js";

/** @typedef {import("../types.js").Experiment} Experiment */

/** Some experiments beside each other: nothing is judged here, that is what comparisons are for. */
export function ComparePage() {
  useTitle("Side by side");
  const ids = route.value.query.getAll("id").slice(0, MOST);
  const asked = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  const { data, error } = usePoll(
    async (signal) => {
      const page = ids.length > 0 ? await get(`/v1/experiments?${asked}`, { signal }) : { items: [] };
      const rows = /** @type {Experiment[]} */ (page.items).sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id));
      const curves = await Promise.all(rows.map((row) => curvesOf(row.id, signal)));
      return { rows, curves };
    },
    [asked],
    5,
  );
  const plots = useMemo(() => (data ? together(data.rows, data.curves) : []), [data]);
  if (!data)
    return html`<h1>Side by side</h1>${error ? html`<${Problem} error=${error} />` : html`<p class="soft" role="status">Loading …</p>`}`;
  return html`
    <h1>Side by side</h1>
    <p class="soft">Single runs differ by chance. For a verdict <a href="#/comparisons">compare variants over seeds</a>.</p>
    ${data.rows.length < ids.length && html`<p role="status">Gone: ${ids.length - data.rows.length} of ${ids.length}. They were deleted.</p>`}
    ${
      data.rows.length === 0
        ? html`<div class="empty"><p>Select experiments in <a href="#/experiments">the list</a>, and press <em>Compare</em>.</p></div>`
        : html`<${Table} rows=${data.rows} /><h2>Curves</h2>
          <div class="plots">${plots.map(({ title, curves }) => html`<${Plot} key=${title} title=${title} curves=${curves} />`)}</div>
          ${plots.length === 0 && html`<p class="soft">None of them has a curve yet.</p>`}`
    }
  `;
}

/**
 * The curves of one experiment; none where its files are gone.
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function curvesOf(id, signal) {
  try {
    return (await get(`/v1/experiments/${id}/metrics?max_points=500`, { signal })).items;
  } catch (error) {
    if (/** @type {{status?: number}} */ (error).status === 410) return [];
    throw error;
  }
}

/** What they are, what they reached, what it cost, and what of their specs differs. @param {{rows: Experiment[]}} props */
function Table({ rows }) {
  const facts = /** @type {[string, unknown[]][]} */ ([
    ["state", rows.map((row) => html`<${State} state=${row.state} />`)],
    ...metricNames(rows).map((name) => [name, rows.map((row) => metric(name, row.metrics[name]))]),
    ["parameters", rows.map((row) => count(/** @type {number | undefined} */ (row.summary.parameters)))],
    ["duration", rows.map((row) => (row.started_at ? duration(secondsBetween(row.started_at, row.ended_at)) : "–"))],
    ...unequal(rows).map(({ path, values }) => [path, values.map(plainLine)]),
  ]);
  return html`
    <div class="sideways" tabindex="0" role="region" aria-label="Experiments side by side">
      <table>
        <caption class="hidden">Experiments side by side</caption>
        <thead>
          <tr>
            <td></td>
            ${rows.map((row) => html`<th scope="col"><a href=${toHash(["experiments", row.id])}>${plainLine(row.name)}</a> <span class="id">${row.id}</span></th>`)}
          </tr>
        </thead>
        <tbody>${facts.map(([name, values]) => html`<tr><th scope="row">${name}</th>${values.map((value) => html`<td>${value}</td>`)}</tr>`)}</tbody>
      </table>
    </div>
  `;
}
