/** The pages by their addresses. */

import { html } from "../lib/html.js";
import { ComparePage } from "./ComparePage.js";
import { ComparisonPage } from "./ComparisonPage.js";
import { ComparisonsPage } from "./ComparisonsPage.js";
import { ExperimentPage } from "./ExperimentPage.js";
import { ExperimentsPage } from "./ExperimentsPage.js";
import { LostPage } from "./LostPage.js";

/** @param {string[]} path */
export function pageOf(path) {
  const [resource = "experiments", id] = path;
  if (resource === "experiments" && !id) return html`<${ExperimentsPage} />`;
  if (resource === "experiments" && path.length === 2) return html`<${ExperimentPage} key=${id} id=${id} />`;
  if (resource === "comparisons" && !id) return html`<${ComparisonsPage} />`;
  if (resource === "comparisons" && path.length === 2) return html`<${ComparisonPage} key=${id} id=${id} />`;
  if (resource === "compare" && !id) return html`<${ComparePage} />`;
  return html`<${LostPage} path=${path} />`;
}
