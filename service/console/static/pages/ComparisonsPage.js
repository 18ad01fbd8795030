import { Pages } from "../components/Pages.js";
import { Problem } from "../components/Problem.js";
import { State } from "../components/State.js";
import { Time } from "../components/Time.js";
import { Trials } from "../components/Trials.js";
import { get } from "../lib/api.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { route, toHash } from "../lib/route.js";
import { plainLine } from "../lib/text.js";
import { useTitle } from "../lib/title.js";

/** All comparisons, the newest first. */
export function ComparisonsPage() {
  useTitle("Comparisons");
  const query = route.value.query;
  const asked = new URLSearchParams({
    limit: "50",
    ...(query.has("cursor") ? { cursor: query.get("cursor") ?? "" } : {}),
  }).toString();
  const { data, error } = usePoll(
    (signal) =>
      /** @type {Promise<import("../types.js").ComparisonPage>} */ (get(`/v1/comparisons?${asked}`, { signal })),
    [asked],
  );
  const rows = data?.items ?? [];
  return html`
    <h1>Comparisons</h1>
    ${error && html`<${Problem} error=${error} what="The list could not be loaded" />`}
    ${!data && !error && html`<p class="soft" role="status">Loading …</p>`}
    ${
      data &&
      rows.length === 0 &&
      html`<div class="empty">
        <p>There are no comparisons yet. Write one, and run it:</p>
        <pre><code>cbam compare init
cbam compare run comparison.yaml</code></pre>
        <p class="soft">It trains every variant with the same seeds, and says in words what that shows.</p>
      </div>`
    }
    ${rows.length > 0 && html`<${List} rows=${rows} />`}
    ${data && html`<${Pages} query=${query} next=${data.next_cursor} />`}
  `;
}

/** @param {{rows: import("../types.js").Comparison[]}} props */
function List({ rows }) {
  return html`
    <div class="table">
      <table>
        <caption class="hidden">Comparisons, ${rows.length} on this page</caption>
        <thead><tr>${["Name", "State", "Runs", "Variants", "Measured", "Seeds", "Submitted", "Owner"].map((words) => html`<th scope="col">${words}</th>`)}</tr></thead>
        <tbody>
          ${rows.map(
            (row) => html`
              <tr key=${row.id}>
                <td class="wide"><a href=${toHash(["comparisons", row.id])}>${plainLine(row.name)}</a> <span class="soft id">${row.id}</span></td>
                <td data-label="State"><${State} state=${row.state} /></td>
                <td data-label="Runs"><${Trials} comparison=${row} /></td>
                <td data-label="Variants">${row.variants.map(plainLine).join(", ")}</td>
                <td data-label="Measured">${plainLine(row.metric)}</td>
                <td data-label="Seeds">${row.seeds}</td>
                <td data-label="Submitted"><${Time} at=${row.created_at} /></td>
                <td data-label="Owner">${plainLine(row.owner)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
