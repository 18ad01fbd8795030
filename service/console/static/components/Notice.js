import { html } from "../lib/html.js";
import { signal } from "../vendor/signals.js";

/** @type {import("../vendor/signals.js").Signal<{words: string, bad: boolean}>} */
const notice = signal({ words: "", bad: false });

/**
 * Tell what came of an action; screen readers say it too.
 * @param {string} words
 * @param {boolean} [bad]
 */
export function tell(words, bad = false) {
  notice.value = { words, bad };
}

export function Notice() {
  const { words, bad } = notice.value;
  return html`
    <div role="status" class="notice-place">
      ${
        words &&
        html`<p class=${bad ? "notice bad" : "notice"}>
          <span>${words}</span>
          <button type="button" class="quiet" onClick=${() => tell("")}>Close</button>
        </p>`
      }
    </div>
  `;
}
