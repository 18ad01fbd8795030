import { ApiError } from "../lib/api.js";
import { html } from "../lib/html.js";
import { plain } from "../lib/text.js";

const HELP = /** @type {Record<number, string>} */ ({
  0: "Check that the server runs (`cbam status`). It is tried again by itself.",
  403: "Your token may not do this: ask an admin, or use another token.",
  404: "It may have been deleted. Go back to the list.",
  410: "It was removed to free space; what is shown elsewhere on this page stays.",
  429: "Too many requests at once. It is tried again by itself.",
  503: "The database or the storage does not answer. It is tried again by itself.",
});

/** What went wrong, and what to do. @param {{error: Error, what?: string}} props */
export function Problem({ error, what = "This could not be loaded" }) {
  const known = error instanceof ApiError ? error : null;
  return html`
    <div class="problem" role="alert">
      <p><strong>${what}:</strong> ${plain(error.message)}</p>
      ${known?.errors.map((one) => html`<p><code>${plain(one.pointer)}</code> ${plain(one.detail)}</p>`)}
      ${known && HELP[known.status] && html`<p class="soft">${HELP[known.status]}</p>`}
    </div>
  `;
}
