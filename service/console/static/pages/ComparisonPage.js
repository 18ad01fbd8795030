import { Actions } from "../components/Actions.js";
import { AddSeeds } from "../components/AddSeeds.js";
import { ForestPlot } from "../components/ForestPlot.js";
import { tell } from "../components/Notice.js";
import { Problem } from "../components/Problem.js";
import { State } from "../components/State.js";
import { Time } from "../components/Time.js";
import { Trials } from "../components/Trials.js";
import { Pairs, Runs, Variants } from "../components/Variants.js";
import { Verdicts } from "../components/Verdicts.js";
import { get } from "../lib/api.js";
import { mayChange } from "../lib/caller.js";
import { save } from "../lib/files.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { plain, plainLine } from "../lib/text.js";
import { useTitle } from "../lib/title.js";

/** @typedef {{comparison: import("../types.js").Comparison, result: import("../types.js").Result}} Loaded */

/** One comparison: what it has shown, first in words. @param {{id: string}} props */
export function ComparisonPage({ id }) {
  const path = `/v1/comparisons/${encodeURIComponent(id)}`;
  const { data, error, reload } = usePoll(
    async (signal) => {
      const [comparison, result] = await Promise.all([get(path, { signal }), get(`${path}/result`, { signal })]);
      return /** @type {Loaded} */ ({ comparison, result });
    },
    [path],
  );
  useTitle(data?.comparison.name ?? id);
  if (!data)
    return error
      ? html`<h1>${id}</h1><${Problem} error=${error} />`
      : html`<p class="soft" role="status">Loading …</p>`;
  const { comparison, result } = data;
  return html`
    <h1>${plainLine(comparison.name)}</h1>
    ${error && html`<${Problem} error=${error} what="This may be old" />`}
    <${Verdicts} result=${result} />
    <${ForestPlot} result=${result} />
    <div class="head">
      <p role="status"><${State} state=${comparison.state} /> ${plainLine(comparison.message)}</p>
      <${Trials} comparison=${comparison} />
      <${Actions} path=${path} what=${comparison} reload=${reload}><${Reports} path=${path} name=${comparison.id} /><//>
      ${comparison.actions.includes("add-seeds") && mayChange(comparison.owner) && html`<${AddSeeds} path=${path} comparison=${comparison} reload=${reload} />`}
    </div>
    <h2>Differences</h2>
    <${Pairs} result=${result} />
    <h2>Variants</h2>
    <${Variants} result=${result} />
    <h2>Runs</h2>
    <${Runs} result=${result} />
    <h2>What was held equal</h2>
    <dl class="facts">
      ${result.conditions.map(({ name, value }) => html`<div><dt>${plainLine(name)}</dt><dd>${plainLine(value)}</dd></div>`)}
      <div><dt>id</dt><dd>${comparison.id}</dd></div>
      <div><dt>owner</dt><dd>${plainLine(comparison.owner)}</dd></div>
      <div><dt>submitted</dt><dd><${Time} at=${comparison.created_at} /></dd></div>
    </dl>
    ${comparison.description && html`<p class="description">${plain(comparison.description)}</p>`}
  `;
}

/** The report as a file. @param {{path: string, name: string}} props */
function Reports({ path, name }) {
  const saved = (/** @type {string} */ from, /** @type {string} */ as) =>
    save(from, as).catch((/** @type {Error} */ error) => tell(`The report: ${error.message}`, true));
  return html`
    <button type="button" onClick=${() => saved(`${path}/report`, `${name}.html`)}>Save report</button>
    <button type="button" onClick=${() => saved(`${path}/report?format=markdown`, `${name}.md`)}>Save as Markdown</button>
    <button type="button" onClick=${() => saved(`${path}/figure.svg`, `${name}.svg`)}>Save figure</button>
  `;
}
