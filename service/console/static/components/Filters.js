import { html } from "../lib/html.js";
import { COLUMNS, isFiltered, shownColumns } from "../lib/list.js";
import { setQuery, withQuery } from "../lib/route.js";
import { useEffect, useRef } from "../vendor/hooks.js";

const STATES = ["QUEUED", "STARTING", "RUNNING", "PAUSING", "PAUSED", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED"];
const WORDS = [
  ["project", "Project"],
  ["owner", "Owner"],
  ["backbone", "Backbone"],
  ["attention", "Attention"],
  ["dataset", "Dataset"],
  ["tag", "Tag"],
];
const WAIT_MS = 300;

/** The filter of the list; everything in it goes to the address at once. @param {{query: URLSearchParams}} props */
export function Filters({ query }) {
  const change = (/** @type {Record<string, string | string[] | null>} */ changes) =>
    setQuery(withQuery(query, { ...changes, cursor: null }));
  const states = query.getAll("state");
  const more = WORDS.some(([name]) => query.has(name));
  const toggled = (/** @type {string} */ state) =>
    states.includes(state) ? states.filter((one) => one !== state) : [...states, state];
  return html`
    <form class="filters" role="search" aria-label="Filter" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <${Word} name="q" words="Name contains" query=${query} change=${change} />
      <fieldset class="states">
        <legend>State</legend>
        ${STATES.map(
          (state) => html`
            <label class="chip">
              <input type="checkbox" checked=${states.includes(state)} onChange=${() => change({ state: toggled(state) })} />
              <span>${state.toLowerCase()}</span>
            </label>
          `,
        )}
      </fieldset>
      <details open=${more}>
        <summary>More filters</summary>
        <div class="fields">
          ${WORDS.map(([name, words]) => html`<${Word} name=${name} words=${words} query=${query} change=${change} />`)}
        </div>
      </details>
      <${Columns} query=${query} />
      ${isFiltered(query) && html`<a class="clear" href="#/experiments">Clear filter</a>`}
    </form>
  `;
}

/**
 * A field that is taken over once nothing more was typed for a moment.
 * @param {{name: string, words: string, query: URLSearchParams, change: (changes: Record<string, string>) => void}} props
 */
function Word({ name, words, query, change }) {
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const typed = (/** @type {{currentTarget: HTMLInputElement}} */ { currentTarget }) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => change({ [name]: currentTarget.value.trim() }), WAIT_MS);
  };
  return html`
    <label class="word">
      <span>${words}</span>
      <input type="search" name=${name} value=${query.get(name) ?? ""} maxlength="128" autocomplete="off" onInput=${typed} />
    </label>
  `;
}

/** @param {{query: URLSearchParams}} props */
function Columns({ query }) {
  const shown = shownColumns(query).map(({ name }) => name);
  const toggle = (/** @type {string} */ name) => {
    const wanted = shown.includes(name) ? shown.filter((one) => one !== name) : [...shown, name];
    setQuery(withQuery(query, { columns: wanted.join(",") }));
  };
  return html`
    <details>
      <summary>Columns</summary>
      <div class="fields">
        ${COLUMNS.filter(({ name }) => name !== "name").map(
          ({ name, words }) => html`
            <label class="chip">
              <input type="checkbox" checked=${shown.includes(name)} onChange=${() => toggle(name)} />
              <span>${words}</span>
            </label>
          `,
        )}
      </div>
    </details>
  `;
}
