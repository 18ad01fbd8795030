import { change } from "../lib/api.js";
import { told } from "../lib/bulk.js";
import { mayWrite } from "../lib/caller.js";
import { html } from "../lib/html.js";
import { toHash } from "../lib/route.js";
import { MOST } from "../lib/side-by-side.js";
import { confirmed } from "./Confirm.js";
import { tell } from "./Notice.js";

/** @typedef {import("../types.js").Experiment} Experiment */

/**
 * What can be done with the experiments that are selected.
 * @param {{rows: Experiment[], selected: Set<string>, select: (ids: Set<string>) => void, reload: () => void}} props
 */
export function Selection({ rows, selected, select, reload }) {
  const chosen = rows.filter(({ id }) => selected.has(id));
  const many = `${selected.size} ${selected.size === 1 ? "experiment" : "experiments"}`;
  const able = (/** @type {string} */ action) => chosen.filter(({ actions }) => actions.includes(action));

  /** @param {string} action @param {string} done @param {() => Promise<string[]>} act */
  const run = async (action, done, act) => {
    try {
      const refused = await act();
      tell(told(selected.size, done, refused), refused.length > 0);
      select(new Set());
    } catch (error) {
      tell(`${action}: ${/** @type {Error} */ (error).message}`, true);
    }
    reload();
  };
  const bulk = async (/** @type {string} */ action) => {
    const answer = await change(`/v1/bulk/${action}`, { ids: [...selected] });
    return refusals(answer.results);
  };
  const cancel = async () => {
    const text = `${many} will end and free what they hold. The last checkpoint of each stays, and each can be retried.`;
    if (await confirmed({ title: "Cancel?", text, action: `Cancel ${many}` }))
      await run("Cancel", "cancelled", () => bulk("cancel"));
  };
  const remove = async () => {
    const text = `${many} will be deleted with logs, checkpoints and files. This cannot be taken back. The MLflow runs stay.`;
    if (await confirmed({ title: "Delete?", text, action: `Delete ${many}` }))
      await run("Delete", "deleted", () => bulk("delete"));
  };
  const clone = () => run("Clone", "submitted once more", () => cloneAll([...selected]));
  const writer = mayWrite();
  return html`
    <div class="selection" role="region" aria-label="Selected experiments">
      <span>${many} selected</span>
      ${selected.size > 1 && selected.size <= MOST && html`<a class="button" href=${toHash(["compare"], new URLSearchParams([...selected].map((id) => ["id", id])))}>Compare</a>`}
      ${writer && html`<button type="button" disabled=${able("cancel").length === 0} onClick=${cancel}>Cancel</button>`}
      ${writer && html`<button type="button" onClick=${clone}>Clone</button>`}
      ${writer && html`<button type="button" disabled=${able("delete").length === 0} onClick=${remove}>Delete</button>`}
      <button type="button" class="quiet" onClick=${() => select(new Set())}>Clear selection</button>
    </div>
  `;
}

/** @param {import("../types.js").BulkResult[]} results */
function refusals(results) {
  return results
    .filter(({ ok }) => !ok)
    .map(({ id, problem }) => `${id}: ${problem?.detail ?? problem?.title ?? "refused"}`);
}

/** @param {string[]} ids */
async function cloneAll(ids) {
  const refused = [];
  for (const id of ids) {
    try {
      await change(`/v1/experiments/${id}/clone`, {});
    } catch (error) {
      refused.push(`${id}: ${/** @type {Error} */ (error).message}`);
    }
  }
  return refused;
}
