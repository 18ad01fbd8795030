import { html } from "../lib/html.js";
import { firstLine } from "../lib/text.js";

/**
 * Why an experiment is where it is, in a line.
 * @param {import("../types.js").Experiment} experiment
 */
export function why(experiment) {
  const { state, desired, reason, message } = experiment;
  const told = firstLine(message);
  if (desired === "cancel" && state !== "CANCELLED" && !experiment.ended_at) return "is about to be cancelled";
  if (state === "QUEUED") {
    if (told) return reason && reason !== "UNSCHEDULABLE" ? `${reason}: ${told}` : told;
    if (desired === "pause") return "is about to be paused";
    return reason ? `waits to go on after ${reason}` : "waits for free workers";
  }
  if (reason === "CANCELLED_BY_USER") return "";
  return [reason, told].filter(Boolean).join(": ");
}

/** @param {{experiment: import("../types.js").Experiment}} props */
export function Why({ experiment }) {
  const words = why(experiment);
  return words ? html`<span class="why" title=${words}>${words}</span>` : null;
}
