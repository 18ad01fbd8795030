import { time } from "../lib/format.js";
import { html } from "../lib/html.js";

/** A moment: local, with UTC on hover. @param {{at: string | null | undefined}} props */
export function Time({ at }) {
  if (!at) return html`<span>–</span>`;
  const { local, utc } = time(at);
  return html`<time datetime=${at} title=${utc}>${local}</time>`;
}
