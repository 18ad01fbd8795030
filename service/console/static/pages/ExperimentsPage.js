import { ExperimentTable } from "../components/ExperimentTable.js";
import { Filters } from "../components/Filters.js";
import { Pages } from "../components/Pages.js";
import { Problem } from "../components/Problem.js";
import { Selection } from "../components/Selection.js";
import { get } from "../lib/api.js";
import { html } from "../lib/html.js";
import { apiQuery, isFiltered } from "../lib/list.js";
import { usePoll } from "../lib/poll.js";
import { route } from "../lib/route.js";
import { useTitle } from "../lib/title.js";
import { useState } from "../vendor/hooks.js";

/** All experiments: a live, paged list, whose filter, order and columns stand in the address. */
export function ExperimentsPage() {
  useTitle("Experiments");
  const query = route.value.query;
  const asked = apiQuery(query).toString();
  const [selected, select] = useState(/** @type {Set<string>} */ (new Set()));
  const { data, error, reload } = usePoll(
    (signal) =>
      /** @type {Promise<import("../types.js").ExperimentPage>} */ (get(`/v1/experiments?${asked}`, { signal })),
    [asked],
  );
  const rows = data?.items ?? [];
  return html`
    <h1>Experiments</h1>
    <${Filters} query=${query} />
    ${error && html`<${Problem} error=${error} what="The list could not be loaded" />`}
    ${selected.size > 0 && html`<${Selection} rows=${rows} selected=${selected} select=${select} reload=${reload} />`}
    ${!data && !error && html`<p class="soft" role="status">Loading …</p>`}
    ${data && rows.length === 0 && html`<${Nothing} query=${query} />`}
    ${rows.length > 0 && html`<${ExperimentTable} rows=${rows} query=${query} selected=${selected} select=${select} />`}
    ${data && html`<${Pages} query=${query} next=${data.next_cursor} />`}
  `;
}

/** @param {{query: URLSearchParams}} props */
function Nothing({ query }) {
  return html`
    <div class="empty">
      ${
        isFiltered(query)
          ? html`<p>No experiment fits this filter. <a href="#/experiments">Show all experiments</a>.</p>`
          : html`<p>There are no experiments yet. Submit one:</p>
              <pre><code>cbam submit --template digits-cbam</code></pre>
              <p class="soft">It appears here as soon as it is accepted.</p>`
      }
    </div>
  `;
}
