import { html } from "../lib/html.js";
import { found, tail } from "../lib/log.js";
import { follow } from "../lib/sse.js";
import { plain } from "../lib/text.js";
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
import { Problem } from "./Problem.js";

/** The log of each rank: it is followed, and searched. @param {{id: string, ranks: number, attempt: number, live: boolean}} props */
export function Log({ id, ranks, attempt, live }) {
  const [rank, setRank] = useState(0);
  const [words, setWords] = useState("");
  const [following, setFollowing] = useState(true);
  const { lines, dropped, state, error } = useLog(id, rank, `${attempt} ${live}`);
  const shown = useMemo(() => found(lines, words), [lines, words]);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (following && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, following]);
  const scrolled = (/** @type {{currentTarget: HTMLElement}} */ { currentTarget: at }) =>
    setFollowing(at.scrollHeight - at.scrollTop - at.clientHeight < 30);
  const input = (/** @type {{currentTarget: HTMLInputElement}} */ { currentTarget }) => setWords(currentTarget.value);
  return html`
    <div class="log-tools">
      ${
        ranks > 1 &&
        html`<label>Rank <select value=${rank} onChange=${(/** @type {{currentTarget: HTMLSelectElement}} */ { currentTarget }) => setRank(Number(currentTarget.value))}>
          ${Array.from({ length: ranks }, (_, index) => html`<option value=${index}>${index}</option>`)}
        </select></label>`
      }
      <label>Search <input type="search" value=${words} onInput=${input} /></label>
      <label class="chip"><input type="checkbox" checked=${following} onChange=${() => setFollowing(!following)} /> <span>Follow</span></label>
      <span class="soft" role="status">
        ${words ? `${shown.length} of ${lines.length} lines` : `${lines.length} lines`}${state === "reconnecting" ? " · reconnecting …" : ""}
      </span>
    </div>
    ${error && html`<${Problem} error=${error} what="The log could not be read" />`}
    ${dropped > 0 && html`<p class="soft">The first ${dropped} lines are left out: download the log below to see all.</p>`}
    <pre class="log" tabindex="0" role="region" aria-label=${`Log of rank ${rank}`} ref=${box} onScroll=${scrolled}>${
      shown.length > 0 ? shown.join("\n") : words ? "No line holds this." : "Nothing is logged yet."
    }</pre>
  `;
}

/**
 * The lines of a log as they come.
 * @param {string} id
 * @param {number} rank
 * @param {string} version what the log is read anew for
 */
function useLog(id, rank, version) {
  const [log, setLog] = useState({ lines: /** @type {string[]} */ ([]), dropped: 0 });
  const [state, setState] = useState("live");
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  useEffect(() => {
    const ending = new AbortController();
    let [lines, dropped, frame] = [/** @type {string[]} */ ([]), 0, 0];
    const draw = () => {
      frame = 0;
      setLog({ lines, dropped });
    };
    setLog({ lines, dropped });
    setError(null);
    follow(`/v1/experiments/${id}/logs/stream?rank=${rank}`, {
      signal: ending.signal,
      onState: setState,
      onEvent: ({ type, data }) => {
        if (type === "end") return;
        ({ lines, dropped } = tail(lines, plain(data).split("\n"), dropped));
        frame ||= requestAnimationFrame(draw);
      },
    }).catch(setError);
    return () => {
      ending.abort();
      cancelAnimationFrame(frame);
    };
  }, [id, rank, version]);
  return { ...log, state, error };
}
