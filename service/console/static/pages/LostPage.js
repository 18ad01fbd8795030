import { html } from "../lib/html.js";
import { useTitle } from "../lib/title.js";

/** @param {{path: string[]}} props */
export function LostPage({ path }) {
  useTitle("No such page");
  return html`
    <h1>No such page</h1>
    <p>The console has no page at <code>${path.join("/")}</code>. Go to the <a href="#/experiments">experiments</a>.</p>
  `;
}
