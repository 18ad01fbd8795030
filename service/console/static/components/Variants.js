import { digitsOf } from "../lib/forest.js";
import { bytes, count, interval, number, percent, points } from "../lib/format.js";
import { html } from "../lib/html.js";
import { toHash } from "../lib/route.js";
import { plainLine } from "../lib/text.js";
import { nameOf } from "./ForestPlot.js";

/** @typedef {import("../types.js").Result} Result */

/** A row for each variant: what it reaches, and what it costs. @param {{result: Result}} props */
export function Variants({ result }) {
  const digits = digitsOf(result);
  return html`
    <${Table} name="Variants" heads=${["Variant", result.metric, "sd over seeds", "Seeds", "Diverged", "Parameters", "Multiply-adds", "Peak memory", "Speed"]}
      rows=${result.variants.map((one) => [
        `${plainLine(one.name)}${one.is_control ? " (control)" : ""}`,
        percent(one.mean, digits),
        one.sd === null ? "–" : `${(100 * one.sd).toFixed(digits + 1)} points`,
        String(one.n),
        `${one.diverged} of ${one.n}`,
        count(one.parameters),
        one.macs === null ? "–" : `${count(one.macs)} an image`,
        bytes(one.peak_memory_bytes),
        one.images_per_second === null ? "–" : `${number(one.images_per_second, 3)} images/s`,
      ])} />
  `;
}

/** A row for each difference. @param {{result: Result}} props */
export function Pairs({ result }) {
  const digits = digitsOf(result);
  return html`
    <${Table} name="Differences" heads=${["Difference", "Δ, points", "95 % interval", "p (Holm)", "Wins / ties / losses", "Verdict"]}
      rows=${result.pairs.map((pair) => [
        nameOf(pair, result),
        points(pair.difference, digits),
        interval(pair.interval ?? pair.anytime, digits) || "–",
        pair.p_holm === null ? "–" : pair.p_holm < 0.001 ? "< 0.001" : String(Number(pair.p_holm.toPrecision(2))),
        pair.wins ? `${pair.wins.wins} / ${pair.wins.ties} / ${pair.wins.losses}` : "–",
        `${pair.verdict}${pair.scope ? ` (${pair.scope})` : ""}`,
      ])} />
  `;
}

/** The runs: a row for each seed, a column for each variant. @param {{result: Result}} props */
export function Runs({ result }) {
  const blocks = [...new Set(result.variants.flatMap(({ runs }) => runs.map(({ block }) => block)))].sort(
    (a, b) => a - b,
  );
  if (blocks.length === 0) return html`<p class="soft">No run has been queued yet.</p>`;
  const cell = (/** @type {import("../types.js").Variant} */ variant, /** @type {number} */ block) => {
    const run = variant.runs.find((one) => one.block === block);
    if (!run) return "–";
    const told =
      run.correct !== null && result.images
        ? percent(run.correct / result.images, digitsOf(result))
        : (run.state ?? "deleted").toLowerCase();
    const words = run.diverged ? `${told} (diverged)` : told;
    return run.state === null ? words : html`<a href=${toHash(["experiments", run.experiment_id])}>${words}</a>`;
  };
  const seed = (/** @type {number} */ block) =>
    result.variants.flatMap(({ runs }) => runs).find((run) => run.block === block)?.seed;
  return html`
    <${Table} name="Runs" heads=${["Seed", ...result.variants.map(({ name }) => plainLine(name))]}
      rows=${blocks.map((block) => [String(seed(block)), ...result.variants.map((variant) => cell(variant, block))])} />
  `;
}

/** @param {{name: string, heads: string[], rows: unknown[][]}} props */
function Table({ name, heads, rows }) {
  return html`
    <div class="table">
      <table>
        <caption class="hidden">${name}</caption>
        <thead><tr>${heads.map((words) => html`<th scope="col">${words}</th>`)}</tr></thead>
        <tbody>
          ${rows.map(
            ([first, ...cells]) => html`
              <tr>
                <td class="wide">${first}</td>
                ${cells.map((value, index) => html`<td class=${value === "–" ? "none" : ""} data-label=${heads[index + 1]}>${value}</td>`)}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
