import { Actions } from "../components/Actions.js";
import { CloneForm } from "../components/CloneForm.js";
import { Curves } from "../components/Curves.js";
import { Cost, Metrics } from "../components/Facts.js";
import { Files } from "../components/Files.js";
import { Attempts, Moves } from "../components/History.js";
import { Log } from "../components/Log.js";
import { Problem } from "../components/Problem.js";
import { Progress } from "../components/Progress.js";
import { Spec } from "../components/Spec.js";
import { State } from "../components/State.js";
import { Time } from "../components/Time.js";
import { why } from "../components/Why.js";
import { get } from "../lib/api.js";
import { mayWrite } from "../lib/caller.js";
import { useEvents } from "../lib/events.js";
import { duration, secondsBetween } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { ranksOf } from "../lib/ranks.js";
import { toHash } from "../lib/route.js";
import { plain, plainLine } from "../lib/text.js";
import { useTitle } from "../lib/title.js";

const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];

/** One experiment. @param {{id: string}} props */
export function ExperimentPage({ id }) {
  const path = `/v1/experiments/${encodeURIComponent(id)}`;
  const { data, error, reload } = usePoll(
    (signal) => /** @type {Promise<import("../types.js").Experiment>} */ (get(path, { signal })),
    [path],
  );
  const live = data && !ENDED.includes(data.state);
  const { events, state } = useEvents(id, live, reload);
  const attempts = usePoll((signal) => get(`${path}/attempts`, { signal }), [path, data?.state, data?.attempt], 0);
  useTitle(data?.name ?? id);
  if (!data)
    return error
      ? html`<h1>${id}</h1><${Problem} error=${error} />`
      : html`<p class="soft" role="status">Loading …</p>`;
  return html`
    <${Head} experiment=${data} path=${path} reload=${reload} />
    ${error && html`<${Problem} error=${error} what="This may be old" />`}
    <h2>Curves</h2>
    <${Curves} id=${id} live=${live} attempt=${data.attempt} />
    <div class="columns">
      <section><h2>Metrics</h2><${Metrics} metrics=${data.metrics} /></section>
      <section><h2>Cost</h2><${Cost} summary=${data.summary} /></section>
    </div>
    <h2>Log</h2>
    <${Log} id=${id} ranks=${ranksOf(data)} attempt=${data.attempt} live=${live} />
    <h2>Files</h2>
    ${data.files.pruned === "all" ? html`<p class="soft">They were removed to free space.</p>` : html`<${Files} id=${id} state=${data.state} live=${live} />`}
    <div class="columns">
      <section><h2>History</h2>${state === "reconnecting" && html`<p class="soft">Reconnecting …</p>`}<${Moves} events=${events} /></section>
      <section><h2>Attempts</h2>${attempts.data?.items.length ? html`<${Attempts} attempts=${attempts.data.items} />` : html`<p class="soft">None yet.</p>`}</section>
    </div>
    <h2>Spec</h2>
    <${Spec} experiment=${data} />
  `;
}

/** @param {{experiment: import("../types.js").Experiment, path: string, reload: () => void}} props */
function Head({ experiment, path, reload }) {
  const { name, id, state, message, links } = experiment;
  const words = why(experiment);
  const whole = plain(message);
  return html`
    <h1>${plainLine(name)}</h1>
    <div class="head">
      <p role="status"><${State} state=${state} /> ${words}</p>
      <${Progress} experiment=${experiment} />
      <dl class="facts">
        <div><dt>id</dt><dd>${id}</dd></div>
        <div><dt>project</dt><dd>${plainLine(experiment.project)}</dd></div>
        <div><dt>owner</dt><dd>${plainLine(experiment.owner)}</dd></div>
        ${
          experiment.study_id &&
          html`<div><dt>comparison</dt><dd><a href=${toHash(["comparisons", experiment.study_id])}>${experiment.study_id}</a></dd></div>`
        }
        <div><dt>submitted</dt><dd><${Time} at=${experiment.created_at} /></dd></div>
        ${experiment.started_at && html`<div><dt>ran for</dt><dd>${duration(secondsBetween(experiment.started_at, experiment.ended_at))}</dd></div>`}
        <div><dt>priority</dt><dd>${experiment.priority}</dd></div>
        ${Object.entries(experiment.tags).map(([key, value]) => html`<div><dt>${plainLine(key)}</dt><dd>${plainLine(value)}</dd></div>`)}
      </dl>
      ${whole.includes("\n") && html`<details><summary>The whole message</summary><pre class="log">${whole}</pre></details>`}
      ${experiment.description && html`<p class="description">${plain(experiment.description)}</p>`}
      <${Actions} path=${path} what=${experiment} reload=${reload}>
        ${links.mlflow && html`<a class="button" href=${links.mlflow} rel="noreferrer" target="_blank">Open in MLflow</a>`}
      <//>
      ${mayWrite() && html`<${CloneForm} id=${id} />`}
    </div>
  `;
}
