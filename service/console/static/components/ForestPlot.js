import { at, DOT, digitsOf, dots, scaleOf, ticks } from "../lib/forest.js";
import { interval, points } from "../lib/format.js";
import { html } from "../lib/html.js";
import { plainLine } from "../lib/text.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";

/** @typedef {import("../types.js").Result} Result */
/** @typedef {import("../types.js").Pair} Pair */
/** @typedef {import("../lib/forest.js").Scale} Scale */

const ROW = 84;
const TOP = 24;
const BOTTOM = 46;

/** The name of a pair: what it is compared with is told where that is not the control for all. @param {Pair} pair @param {Result} result */
export function nameOf(pair, result) {
  return plainLine(result.pairs_judged === "control" ? pair.first : `${pair.first} − ${pair.second}`);
}

/** Every difference: a dot for each seed, its intervals, and the margin. @param {{result: Result}} props */
export function ForestPlot({ result }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const [width, setWidth] = useState(720);
  useEffect(() => {
    const node = /** @type {HTMLElement} */ (place.current);
    const watch = new ResizeObserver(() => setWidth(Math.max(280, Math.min(980, node.clientWidth))));
    watch.observe(node);
    return () => watch.disconnect();
  }, []);
  const scale = scaleOf(result, 14, width - 14);
  const bottom = TOP + ROW * result.pairs.length;
  return html`
    <div ref=${place} class="forest">
      <svg role="img" aria-labelledby="forest-title forest-words" width=${width} height=${bottom + BOTTOM} viewBox=${`0 0 ${width} ${bottom + BOTTOM}`}>
        <title id="forest-title">Differences in ${plainLine(result.metric)} from ${plainLine(result.control)}</title>
        <desc id="forest-words">${result.summary.map(plainLine).join(" ")}</desc>
        <${Field} result=${result} scale=${scale} bottom=${bottom} />
        ${result.pairs.map((pair, index) => html`<${Row} key=${`${pair.first} ${pair.second}`} pair=${pair} result=${result} scale=${scale} top=${TOP + ROW * index} />`)}
      </svg>
      <${Legend} result=${result} />
    </div>
  `;
}

/** The band of the margin, the line of no difference, and the axis. @param {{result: Result, scale: Scale, bottom: number}} props */
function Field({ result, scale, bottom }) {
  const places = ticks(scale);
  const step = places.length > 1 ? 100 * (places[1] - places[0]) : 1;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const than =
    result.pairs_judged === "all" ? "percentage points" : `percentage points more than ${plainLine(result.control)}`;
  return html`
    ${
      result.margin !== null &&
      html`<rect class="band" x=${at(scale, -result.margin)} y=${TOP} width=${at(scale, result.margin) - at(scale, -result.margin)} height=${bottom - TOP} />`
    }
    <text class="soft" x=${scale.left} y="14">worse ←</text>
    <text class="soft" x=${scale.right} y="14" text-anchor="end">→ better</text>
    <line class="ink" x1=${at(scale, 0)} x2=${at(scale, 0)} y1=${TOP} y2=${bottom} />
    <line class="ink" x1=${scale.left} x2=${scale.right} y1=${bottom} y2=${bottom} />
    ${places.map(
      (value) => html`
        <line class="ink" x1=${at(scale, value)} x2=${at(scale, value)} y1=${bottom} y2=${bottom + 5} />
        <text x=${at(scale, value)} y=${bottom + 19} text-anchor="middle">${points(value, digits).replace("+", "")}</text>
      `,
    )}
    <text class="soft" x=${(scale.left + scale.right) / 2} y=${bottom + 38} text-anchor="middle">${than}</text>
  `;
}

/** @param {{pair: Pair, result: Result, scale: Scale, top: number}} props */
function Row({ pair, result, scale, top }) {
  const digits = digitsOf(result);
  const middle = top + 40;
  const hidden = result.hidden || pair.difference === null;
  const words = result.hidden
    ? `${pair.n} of ${result.seeds.planned} seeds; hidden until the last`
    : pair.difference === null
      ? "no seeds yet"
      : `${points(pair.difference, digits)} ${interval(pair.interval ?? pair.anytime, digits)} points`;
  const tested = pair.verdict !== "not comparable";
  return html`
    <g>
      <line class="rule" x1=${scale.left} x2=${scale.right} y1=${top + ROW} y2=${top + ROW} />
      <text class="name" x=${scale.left} y=${top + 20}>${nameOf(pair, result)}</text>
      <text class="number" x=${scale.right} y=${top + 20} text-anchor="end">${words}</text>
      ${!hidden && dots(pair.differences, scale, middle + 14).map(({ x, y }) => html`<circle class="dot" cx=${x} cy=${y} r=${DOT} />`)}
      ${
        !hidden &&
        tested &&
        html`
        <${Line} told=${pair.simultaneous} scale=${scale} y=${middle} kind="thin" />
        <${Line} told=${pair.anytime} scale=${scale} y=${middle} kind="thin dashed" />
        <${Line} told=${pair.interval} scale=${scale} y=${middle} kind="thick" />
      `
      }
      ${!hidden && html`<path class="mean" d=${`M${at(scale, /** @type {number} */ (pair.difference)) - 5} ${middle}l5 -6l5 6l-5 6Z`} />`}
    </g>
  `;
}

/** An interval; an end that is off the plot is an arrow. @param {{told: import("../types.js").Interval | null, scale: Scale, y: number, kind: string}} props */
function Line({ told, scale, y, kind }) {
  if (!told) return null;
  const low = told.low ?? Number.NEGATIVE_INFINITY;
  const high = told.high ?? Number.POSITIVE_INFINITY;
  const [left, right] = [at(scale, low), at(scale, high)];
  return html`
    <line class=${kind} x1=${left} x2=${right} y1=${y} y2=${y} />
    ${low < scale.low && html`<path class="tip" d=${`M${left - 7} ${y}l7 -4.5v9z`} />`}
    ${high > scale.high && html`<path class="tip" d=${`M${right + 7} ${y}l-7 -4.5v9z`} />`}
  `;
}

/** What each mark that is drawn means. @param {{result: Result}} props */
function Legend({ result }) {
  const tested = result.pairs.filter(({ verdict }) => verdict !== "not comparable");
  const together = result.tests > 1 ? ` for all ${result.tests} pairs together` : "";
  const marks = [
    result.pairs.some(({ differences }) => differences.length > 0) && ["dot", "one seed"],
    result.pairs.some(({ difference }) => difference !== null) && ["mean", "mean"],
    tested.some((pair) => pair.interval) && ["thick", "95 % interval"],
    together && tested.some((pair) => pair.simultaneous) && ["thin", `95 %${together}`],
    tested.some((pair) => pair.anytime) && ["thin dashed", `95 % at every look${together}`],
    result.margin !== null && ["band", `within the margin, ±${Number((100 * result.margin).toPrecision(6))} points`],
  ].filter(Boolean);
  return html`<ul class="legend">${/** @type {string[][]} */ (marks).map(([kind, words]) => html`<li><svg width="26" height="14" aria-hidden="true">${mark(kind)}</svg>${words}</li>`)}</ul>`;
}

/** @param {string} kind */
function mark(kind) {
  if (kind === "dot") return html`<circle class="dot" cx="13" cy="7" r=${DOT} />`;
  if (kind === "mean") return html`<path class="mean" d="M8 7l5 -6l5 6l-5 6Z" />`;
  if (kind === "band") return html`<rect class="band" x="0" y="1" width="26" height="12" />`;
  return html`<line class=${kind} x1="0" x2="26" y1="7" y2="7" />`;
}
