/** The console: which page the address names, and what is round every page. */

import { Confirm } from "./components/Confirm.js";
import { Header } from "./components/Header.js";
import { Notice } from "./components/Notice.js";
import { TokenForm } from "./components/TokenForm.js";
import { useWhoami } from "./lib/caller.js";
import { html } from "./lib/html.js";
import { route, startRouting } from "./lib/route.js";
import { refusal, token } from "./lib/session.js";
import { pageOf } from "./pages/pages.js";
import { useEffect, useRef } from "./vendor/hooks.js";
import { render } from "./vendor/preact.js";
// Imported for what it does: components that read a signal are drawn again when it changes.
import "./vendor/signals.js";

function App() {
  useWhoami();
  const { path } = route.value;
  const place = path.join("/");
  const main = useRef(/** @type {HTMLElement | null} */ (null));
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [place]);
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      main.current?.focus();
    }}>Skip to the content</a>
    <${Header} here=${path[0] ?? "experiments"} />
    <${Notice} />
    <main id="main" tabindex="-1" ref=${main}>
      ${refusal.value ? html`<${TokenForm} />` : html`<div key=${`${place} ${token.value}`}>${pageOf(path)}</div>`}
    </main>
    <${Confirm} />
  `;
}

startRouting();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
