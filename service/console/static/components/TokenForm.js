import { html } from "../lib/html.js";
import { refusal, useToken } from "../lib/session.js";
import { useTitle } from "../lib/title.js";
import { useEffect, useRef } from "../vendor/hooks.js";

/** Asks for the token, which stays in this tab until it is closed. */
export function TokenForm() {
  useTitle("Token");
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => field.current?.focus(), []);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const secret = field.current?.value.trim();
    if (secret) useToken(secret);
  };
  return html`
    <form class="card token" onSubmit=${submit}>
      <h1>Token</h1>
      <p role="alert">${refusal.value}</p>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="off" spellcheck="false" required ref=${field} aria-describedby="token-help" />
      <p id="token-help" class="soft">
        An admin makes one with <code>cbam token create NAME</code>. It is kept in this tab alone, and sent to this server alone.
      </p>
      <button type="submit" class="main">Use token</button>
    </form>
  `;
}
