import { change } from "../lib/api.js";
import { html } from "../lib/html.js";
import { overrides } from "../lib/spec.js";
import { useState } from "../vendor/hooks.js";
import { tell } from "./Notice.js";
import { Problem } from "./Problem.js";

/** Submit the same once more, with changes. @param {{id: string}} props */
export function CloneForm({ id }) {
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const submit = async (/** @type {SubmitEvent & {currentTarget: HTMLFormElement}} */ event) => {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget).get("changes"));
    try {
      const copy = await change(`/v1/experiments/${id}/clone`, overrides(text));
      tell(
        `${copy.id} is submitted. ${copy.warnings.map((/** @type {{detail: string}} */ one) => one.detail).join(" ")}`,
      );
      location.hash = `#/experiments/${copy.id}`;
    } catch (problem) {
      setError(/** @type {Error} */ (problem));
    }
  };
  return html`
    <details class="clone">
      <summary>Clone with changes</summary>
      <form onSubmit=${submit}>
        <label for="changes">Changes, one in each line; none to repeat it</label>
        <textarea id="changes" name="changes" rows="3" spellcheck="false" placeholder="train.epochs = 3"></textarea>
        ${error && html`<${Problem} error=${error} what="It was not submitted" />`}
        <button type="submit" class="main">Submit the clone</button>
      </form>
    </details>
  `;
}
