import { html } from "../lib/html.js";
import { plain, plainLine } from "../lib/text.js";

/** The verdicts in words, and what to know before believing them. @param {{result: import("../types.js").Result}} props */
export function Verdicts({ result }) {
  const { seeds } = result;
  const far = `${seeds.finished} of ${seeds.planned} paired seeds finished`;
  const warnings = [
    ...result.warnings,
    ...result.pairs.flatMap((pair) => pair.warnings.map((one) => `${pair.first}: ${one}`)),
  ];
  return html`
    <section class="verdicts" aria-labelledby="verdict">
      <h2 id="verdict" class="hidden">Verdict</h2>
      ${result.summary.map((words) => html`<p class="verdict">${plain(words)}</p>`)}
      <p class="soft" role="status">
        ${far}${result.running ? "; all is provisional until the last" : ""}${result.images === null ? "" : `; ${result.images.toLocaleString("en")} images each`}
      </p>
      ${warnings.length > 0 && html`<ul class="warnings">${warnings.map((words) => html`<li>${plain(words)}</li>`)}</ul>`}
      ${result.not_comparable.length > 0 && html`<${Unequal} result=${result} />`}
    </section>
  `;
}

/** What differs between the runs, and was not varied. @param {{result: import("../types.js").Result}} props */
function Unequal({ result }) {
  return html`
    <div class="problem">
      <p><strong>These runs cannot be compared:</strong> what follows should be the same in all of them.</p>
      <ul>
        ${result.not_comparable.map(
          ({ field, words, values }) => html`
            <li>
              <code>${plainLine(field)}</code> ${plain(words)}
              <ul>${values.map((one) => html`<li>${plainLine(one.value)}: ${one.runs} ${one.runs === 1 ? "run" : "runs"} (${one.of.map(plainLine).join(", ")})</li>`)}</ul>
            </li>
          `,
        )}
      </ul>
    </div>
  `;
}
