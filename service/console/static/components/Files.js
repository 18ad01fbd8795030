import { get } from "../lib/api.js";
import { mayWrite } from "../lib/caller.js";
import { saveFile } from "../lib/files.js";
import { bytes } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { plainLine } from "../lib/text.js";
import { tell } from "./Notice.js";
import { Picture } from "./Picture.js";
import { Problem } from "./Problem.js";
import { Time } from "./Time.js";

const PICTURES = /\.(png|jpe?g|webp)$/i;

/** The files of an experiment, and its pictures. @param {{id: string, state: string, live: boolean}} props */
export function Files({ id, state, live }) {
  const { data, error } = usePoll(
    async (signal) => {
      const answer = await get(`/v1/experiments/${id}/files`, { signal });
      return {
        files: /** @type {import("../types.js").StoredFile[]} */ (answer.items),
        more: answer.next_cursor !== null,
      };
    },
    [id, state],
    live ? 10 : 0,
  );
  if (error) return html`<${Problem} error=${error} what="The files could not be listed" />`;
  if (!data) return html`<p class="soft">Loading …</p>`;
  if (data.files.length === 0)
    return html`<p class="soft">There are no files yet: logs and checkpoints come with the first attempt.</p>`;
  const pictures = data.files.filter(({ path }) => PICTURES.test(path)).slice(0, 12);
  const download = (/** @type {import("../types.js").StoredFile} */ file) =>
    saveFile(id, file, mayWrite()).catch((/** @type {Error} */ problem) =>
      tell(`${file.path}: ${problem.message}`, true),
    );
  return html`
    ${pictures.length > 0 && html`<div class="pictures">${pictures.map((file) => html`<${Picture} key=${file.path} id=${id} path=${file.path} version=${file.modified} />`)}</div>`}
    <div class="table">
      <table>
        <caption class="hidden">Files</caption>
        <thead><tr><th scope="col">File</th><th scope="col">Kind</th><th scope="col">Size</th><th scope="col">Modified</th></tr></thead>
        <tbody>
          ${data.files.map(
            (file) => html`
              <tr key=${file.path}>
                <td class="wide"><button type="button" class="link" onClick=${() => download(file)}>${plainLine(file.path)}</button></td>
                <td data-label="Kind">${file.kind.replaceAll("_", " ")}</td>
                <td data-label="Size">${bytes(file.size)}</td>
                <td data-label="Modified"><${Time} at=${file.modified} /></td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
    ${data.more && html`<p class="soft">There are more files than these: use <code>cbam files ${id}</code>.</p>`}
  `;
}
