import { html } from "../lib/html.js";
import { ariaSort, shownColumns, turnedSort } from "../lib/list.js";
import { toHash, withQuery } from "../lib/route.js";
import { ExperimentRow } from "./ExperimentRow.js";

const ARROWS = /** @type {Record<string, string>} */ ({ ascending: "↑", descending: "↓", none: "" });

/**
 * @param {{rows: import("../types.js").Experiment[], query: URLSearchParams, selected: Set<string>,
 *   select: (ids: Set<string>) => void}} props
 */
export function ExperimentTable({ rows, query, selected, select }) {
  const columns = shownColumns(query);
  const all = rows.length > 0 && rows.every(({ id }) => selected.has(id));
  const toggle = (/** @type {string} */ id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    select(next);
  };
  return html`
    <div class="table">
      <table>
        <caption class="hidden">Experiments, ${rows.length} on this page</caption>
        <thead>
          <tr>
            <th scope="col" class="check">
              <input type="checkbox" aria-label="Select all on this page" checked=${all}
                onChange=${() => select(new Set(all ? [] : rows.map(({ id }) => id)))} />
            </th>
            ${columns.map((column) => html`<${Head} column=${column} query=${query} />`)}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`<${ExperimentRow} key=${row.id} experiment=${row} columns=${columns}
              selected=${selected.has(row.id)} toggle=${() => toggle(row.id)} />`,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** @param {{column: {words: string, sort?: string}, query: URLSearchParams}} props */
function Head({ column, query }) {
  const now = query.get("sort");
  const order = ariaSort(column.sort, now);
  if (!column.sort) return html`<th scope="col">${column.words}</th>`;
  const next = withQuery(query, { sort: turnedSort(column.sort, now ?? "-created_at"), cursor: null });
  return html`
    <th scope="col" aria-sort=${order}>
      <a href=${toHash(["experiments"], next)}>${column.words} <span aria-hidden="true">${ARROWS[order ?? "none"]}</span></a>
    </th>
  `;
}
