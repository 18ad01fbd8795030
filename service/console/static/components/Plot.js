import { aligned } from "../lib/curves.js";
import { metric, number, tick } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import uPlot from "../vendor/uplot.js";
import { useTheme } from "./theme.js";

const HEIGHT = 230;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

/** @param {import("../types.js").Curve} curve */
const nameOf = (curve) => curve.label ?? curve.name;

/**
 * Curves over the steps of a training. The values at the pointer, or else the last ones, stand in the legend.
 * @param {{title: string, curves: import("../types.js").Curve[]}} props
 */
export function Plot({ title, curves }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const theme = useTheme();
  const data = useMemo(() => aligned(curves), [curves]);
  const names = curves.map(nameOf).join(" ");
  useEffect(() => {
    const node = /** @type {HTMLElement} */ (place.current);
    const drawn = new uPlot(options(title, curves, theme, node.clientWidth, setAt), data, node);
    plot.current = drawn;
    const watch = new ResizeObserver(() => drawn.setSize({ width: node.clientWidth, height: HEIGHT }));
    watch.observe(node);
    return () => {
      watch.disconnect();
      drawn.destroy();
      plot.current = null;
    };
  }, [names, theme]);
  useEffect(() => plot.current?.setData(data), [data]);
  const rows = curves.map((curve, index) => ({
    curve,
    color: theme.lines[index % theme.lines.length],
    ...shown(data, index, at),
  }));
  const words = rows
    .map(({ curve, value, step }) => `${nameOf(curve)}: ${metric(curve.name, value)} at step ${step}`)
    .join("; ");
  return html`
    <figure class="plot">
      <figcaption>${title} <span class="soft">over optimizer steps</span></figcaption>
      <div ref=${place} class="canvas" role="img" aria-label=${`${title}. ${words}`}></div>
      <ul class="legend">
        ${rows.map(
          ({ curve, color, value, step }, index) => html`
            <li>
              <svg width="22" height="8" aria-hidden="true">
                <line x1="0" x2="22" y1="4" y2="4" stroke=${color} stroke-width="2" stroke-dasharray=${DASHES[index % DASHES.length].join(" ")} />
              </svg>
              <span>${nameOf(curve)}</span> <strong>${metric(curve.name, value)}</strong> <span class="soft">step ${number(step)}</span>
            </li>
          `,
        )}
      </ul>
    </figure>
  `;
}

/**
 * The value of a curve at a place, or its last one.
 * @param {ReturnType<typeof aligned>} data
 * @param {number} index
 * @param {number | null} at
 */
function shown(data, index, at) {
  const column = data[index + 1];
  let place = at ?? column.length - 1;
  while (place > 0 && column[place] === undefined) place -= 1;
  return { value: /** @type {number | null | undefined} */ (column[place]), step: data[0][place] };
}

/**
 * @param {string} title
 * @param {import("../types.js").Curve[]} curves
 * @param {import("./theme.js").Theme} theme
 * @param {number} width
 * @param {(at: number | null) => void} setAt
 * @returns {uPlot.Options}
 */
function options(title, curves, theme, width, setAt) {
  const axis = { stroke: theme.soft, grid: { stroke: theme.rule, width: 1 }, ticks: { stroke: theme.rule, width: 1 } };
  const told = (/** @type {uPlot} */ _, /** @type {number[]} */ values) =>
    values.map((value) => tick(`/${title.split("/").at(-1)}`, value));
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false } },
    scales: { x: { time: false } },
    axes: [axis, { ...axis, size: 62, values: told }],
    series: [
      {},
      ...curves.map((curve, index) => ({
        label: nameOf(curve),
        stroke: theme.lines[index % theme.lines.length],
        width: 1.6,
        dash: DASHES[index % DASHES.length],
        points: { show: curve.steps.length < 40, fill: theme.paper },
      })),
    ],
    hooks: { setCursor: [(drawn) => setAt(drawn.cursor.idx ?? null)] },
  };
}
