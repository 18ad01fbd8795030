import { change } from "../lib/api.js";
import { mayChange, mayWrite } from "../lib/caller.js";
import { html } from "../lib/html.js";
import { confirmed } from "./Confirm.js";
import { tell } from "./Notice.js";

/** Words of each action: its button, and what is asked before it. */
const WORDS = /** @type {Record<string, {words: string, done: string, ask?: string}>} */ ({
  cancel: {
    words: "Cancel",
    done: "It is about to be cancelled.",
    ask: "It will end and free what it holds. The last checkpoint stays, and it can be retried.",
  },
  pause: { words: "Pause", done: "It pauses at its next step, with a checkpoint." },
  resume: { words: "Resume", done: "It goes on as soon as there is room." },
  retry: { words: "Retry", done: "It is queued once more, and goes on from its last checkpoint." },
  delete: {
    words: "Delete",
    done: "It is deleted.",
    ask: "It will be deleted with its files. This cannot be taken back. MLflow runs stay.",
  },
});

/**
 * Buttons for what the state of an experiment or a comparison allows.
 * @param {{path: string, what: {actions: string[], owner: string}, reload: () => void, children?: unknown}} props
 */
export function Actions({ path, what, reload, children }) {
  const list = path.split("/").slice(2, -1).join("/");
  const act = async (/** @type {string} */ action) => {
    const { words, done, ask } = WORDS[action];
    if (ask && !(await confirmed({ title: `${words}?`, text: ask, action: words }))) return;
    try {
      if (action === "delete") await change(path, undefined, "DELETE");
      else await change(`${path}/${action}`);
      tell(done);
      if (action === "delete") location.hash = `#/${list}`;
    } catch (error) {
      tell(`${words}: ${/** @type {Error} */ (error).message}`, true);
    }
    reload();
  };
  if (!mayWrite()) return null;
  const able = mayChange(what.owner) ? what.actions.filter((action) => action in WORDS) : [];
  return html`
    <div class="buttons">
      ${able.map((action) => html`<button type="button" key=${action} onClick=${() => act(action)}>${WORDS[action].words}</button>`)}
      ${children}
    </div>
  `;
}
