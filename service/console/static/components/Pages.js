import { html } from "../lib/html.js";
import { route, toHash, withQuery } from "../lib/route.js";

/** The ways to the first and the next page. @param {{query: URLSearchParams, next: string | null}} props */
export function Pages({ query, next }) {
  const to = (/** @type {string | null} */ cursor) => toHash(route.value.path, withQuery(query, { cursor }));
  if (!next && !query.has("cursor")) return null;
  return html`
    <nav class="pages" aria-label="Pages of the list">
      ${query.has("cursor") && html`<a class="button" href=${to(null)}>First page</a>`}
      ${next && html`<a class="button" href=${to(next)}>Next page</a>`}
    </nav>
  `;
}
