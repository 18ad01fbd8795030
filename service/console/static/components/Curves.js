import { get } from "../lib/api.js";
import { grouped, joined, lastStep } from "../lib/curves.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { useMemo, useRef } from "../vendor/hooks.js";
import { Plot } from "./Plot.js";
import { Problem } from "./Problem.js";

/** Looks whose steps are read again: a metric may be told some seconds after another of the same step. */
const LOOKS_BACK = 15;

/** All curves of an experiment, live while it trains. @param {{id: string, live: boolean, attempt: number}} props */
export function Curves({ id, live, attempt }) {
  const known = useRef({
    curves: /** @type {import("../types.js").Curve[]} */ ([]),
    steps: /** @type {number[]} */ ([]),
  });
  const load = async (/** @type {AbortSignal} */ signal) => {
    const { curves, steps } = known.current;
    const after = live && steps.length > LOOKS_BACK ? steps[steps.length - LOOKS_BACK] : -1;
    const answer = await get(`/v1/experiments/${id}/metrics?after_step=${after}&max_points=2000`, { signal });
    const now = joined(after < 0 ? [] : curves, answer.items);
    known.current = { curves: now, steps: [...steps, lastStep(now)].slice(-2 * LOOKS_BACK) };
    return now;
  };
  const { data, error } = usePoll(load, [id, live, attempt], live ? 2 : 0);
  const plots = useMemo(() => grouped(data ?? []), [data]);
  if (error && !data) return html`<${Problem} error=${error} what="The curves could not be loaded" />`;
  if (!data) return html`<p class="soft">Loading …</p>`;
  if (plots.length === 0)
    return html`<p class="soft">No curve yet: the first points come with the first logged steps.</p>`;
  return html`<div class="plots">${plots.map(({ title, curves }) => html`<${Plot} key=${title} title=${title} curves=${curves} />`)}</div>`;
}
