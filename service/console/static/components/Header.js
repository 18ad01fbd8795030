import { address } from "../lib/api.js";
import { caller } from "../lib/caller.js";
import { html } from "../lib/html.js";
import { forgetToken, reachable, token } from "../lib/session.js";

const PAGES = [
  ["experiments", "Experiments"],
  ["comparisons", "Comparisons"],
];

/** @param {{here: string}} props */
export function Header({ here }) {
  const who = caller.value;
  return html`
    <header class="top">
      <a class="brand" href="#/experiments">cbam-lab</a>
      <nav aria-label="Pages">
        ${PAGES.map(
          ([name, words]) =>
            html`<a href=${`#/${name}`} aria-current=${here === name ? "page" : undefined}>${words}</a>`,
        )}
        <a href=${address("/docs")}>API</a>
      </nav>
      <span class="who">
        ${who && html`<span title=${`role: ${who.role}`}>${who.name}</span>`}
        ${token.value && html`<button type="button" class="quiet" onClick=${forgetToken}>Forget token</button>`}
      </span>
    </header>
    <div role="status" class="link-state">
      ${reachable.value ? "" : html`<p>The server does not answer. Reconnecting; what is shown may be old.</p>`}
    </div>
  `;
}
