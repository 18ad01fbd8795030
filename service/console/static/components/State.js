import { html } from "../lib/html.js";

const MARKS = /** @type {Record<string, string>} */ ({
  QUEUED: "○",
  STARTING: "◔",
  RUNNING: "▶",
  ACTIVE: "▶",
  PAUSING: "◑",
  PAUSED: "❚❚",
  CANCELLING: "◌",
  STOPPING: "◌",
  SUCCEEDED: "✓",
  FAILED: "✕",
  CANCELLED: "⊘",
});

/** Where an experiment is: a word and a mark, so that it is never told in colour alone. @param {{state: string}} props */
export function State({ state }) {
  return html`<span class=${`state ${state.toLowerCase()}`}><span aria-hidden="true">${MARKS[state] ?? "·"}</span> ${state.toLowerCase()}</span>`;
}
