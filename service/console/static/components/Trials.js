import { html } from "../lib/html.js";

/** How far the runs of a comparison are. @param {{comparison: import("../types.js").Comparison}} props */
export function Trials({ comparison }) {
  const { trials } = comparison;
  const ended = trials.succeeded + trials.failed + trials.cancelled;
  const words = [
    `${ended} of ${trials.planned} runs ended`,
    trials.running > 0 && `${trials.running} running`,
    trials.failed > 0 && `${trials.failed} failed`,
    trials.cancelled > 0 && `${trials.cancelled} cancelled`,
  ].filter(Boolean);
  return html`
    <span class="progress">
      <progress max=${Math.max(1, trials.planned)} value=${ended} aria-label=${`Progress of ${comparison.id}`}></progress>
      <span>${words.join(" · ")}</span>
    </span>
  `;
}
