import { change } from "../lib/api.js";
import { html } from "../lib/html.js";
import { tell } from "./Notice.js";

const FEW = 4;
const MOST = 200;

/** More seeds for every variant. @param {{path: string, comparison: import("../types.js").Comparison, reload: () => void}} props */
export function AddSeeds({ path, comparison, reload }) {
  const submit = async (/** @type {SubmitEvent & {currentTarget: HTMLFormElement}} */ event) => {
    event.preventDefault();
    const more = Number(new FormData(event.currentTarget).get("more"));
    try {
      const now = await change(path, { seeds: comparison.seeds + more }, "PATCH");
      tell(`It has ${now.seeds} seeds for each of ${now.variants.length} variants now.`);
    } catch (error) {
      tell(`Add seeds: ${/** @type {Error} */ (error).message}`, true);
    }
    reload();
  };
  return html`
    <form class="seeds" onSubmit=${submit}>
      <label>Seeds to add <input type="number" name="more" min="1" max=${MOST - comparison.seeds} value=${FEW} required /></label>
      <button type="submit">Add seeds</button>
      <span class="soft">to the ${comparison.seeds} that are planned; after results were seen, only the interval for every look is told</span>
    </form>
  `;
}
