import { duration, number, secondsBetween } from "../lib/format.js";
import { html } from "../lib/html.js";
import { plain, plainLine } from "../lib/text.js";
import { State } from "./State.js";
import { Time } from "./Time.js";

/** Every change of state. @param {{events: import("../types.js").Event[]}} props */
export function Moves({ events }) {
  return html`
    <ol class="moves">
      ${events.map(
        (event) => html`
          <li key=${event.seq}>
            <${Time} at=${event.at} />
            <span><${State} state=${event.to_state} /> <span class="soft">attempt ${event.attempt} · by ${plainLine(event.by)}</span></span>
            ${event.reason && html`<span>${event.reason}</span>`}
            ${event.message && html`<pre>${plain(event.message)}</pre>`}
          </li>
        `,
      )}
    </ol>
  `;
}

/** Every attempt, and why it ended. @param {{attempts: import("../types.js").Attempt[]}} props */
export function Attempts({ attempts }) {
  return html`
    <div class="table">
      <table>
        <caption class="hidden">Attempts</caption>
        <thead>
          <tr>
            ${["Attempt", "Started", "Duration", "Steps", "Nodes", "Ended by"].map((words) => html`<th scope="col">${words}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${attempts.map(
            (one) => html`
              <tr key=${one.number}>
                <td class="wide">${one.number}</td>
                <td data-label="Started"><${Time} at=${one.started_at} /></td>
                <td data-label="Duration">${duration(secondsBetween(one.started_at, one.ended_at))}</td>
                <td data-label="Steps">${one.resumed_from_step ? `${number(one.resumed_from_step)} → ` : ""}${number(one.last_step)}</td>
                <td data-label="Nodes">${one.node_ids.length}</td>
                <td data-label="Ended by">${one.ended_at ? (one.reason ?? "its own end") : "it runs"}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
