import { duration, number } from "../lib/format.js";
import { html } from "../lib/html.js";

const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];

/** How far a training is. @param {{experiment: import("../types.js").Experiment}} props */
export function Progress({ experiment }) {
  const { step, total_steps, epoch, epochs, phase, eta_seconds, images_per_second } = experiment.progress;
  if (!total_steps) return html`<span class="soft">${phase || "–"}</span>`;
  const share = Math.min(1, step / total_steps);
  const words = `${epoch} of ${epochs} ${epochs === 1 ? "epoch" : "epochs"}`;
  const live = !ENDED.includes(experiment.state);
  const more = [
    live && eta_seconds !== null && `${duration(eta_seconds)} left`,
    live && images_per_second !== null && `${number(images_per_second, 3)} images/s`,
  ].filter(Boolean);
  return html`
    <span class="progress">
      <progress max="1" value=${share} aria-label=${`Progress of ${experiment.id}`}></progress>
      <span>${words}</span>
      ${more.length > 0 && html`<span class="soft">${more.join(" · ")}</span>`}
    </span>
  `;
}
