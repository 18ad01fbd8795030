import { get } from "../lib/api.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { toHash } from "../lib/route.js";
import { differences, leaf, leaves } from "../lib/spec.js";
import { plainLine } from "../lib/text.js";

/** What was asked for, and what of it is not as in the experiment that it was cloned from. @param {{experiment: import("../types.js").Experiment}} props */
export function Spec({ experiment }) {
  return html`
    ${experiment.cloned_from && html`<${Changed} id=${experiment.cloned_from} spec=${experiment.spec} />`}
    <details>
      <summary>All ${leaves(experiment.spec).length} fields</summary>
      <dl class="facts spec">
        ${leaves(experiment.spec).map(([path, value]) => html`<div><dt>${plainLine(path)}</dt><dd>${plainLine(leaf(value))}</dd></div>`)}
      </dl>
    </details>
  `;
}

/** @param {{id: string, spec: Record<string, unknown>}} props */
function Changed({ id, spec }) {
  const { data, error } = usePoll((signal) => get(`/v1/experiments/${id}`, { signal }), [id], 0);
  const from = html`<a href=${toHash(["experiments", id])}>${id}</a>`;
  if (error) return html`<p class="soft">It was cloned from ${id}, which is no longer there.</p>`;
  if (!data) return null;
  const found = differences(data.spec, spec);
  if (found.length === 0) return html`<p>Cloned from ${from}, with the same spec.</p>`;
  return html`
    <p>Cloned from ${from}, with changes:</p>
    <div class="table">
      <table>
        <caption class="hidden">Changes of the spec</caption>
        <thead><tr><th scope="col">Field</th><th scope="col">There</th><th scope="col">Here</th></tr></thead>
        <tbody>
          ${found.map(
            ({ path, before, after }) => html`
              <tr><td class="wide"><code>${plainLine(path)}</code></td><td data-label="There">${plainLine(leaf(before))}</td><td data-label="Here">${plainLine(leaf(after))}</td></tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
