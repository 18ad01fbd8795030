/** Files of an experiment: seen, and saved. */

import { address, change, send } from "./api.js";

const LARGE_BYTES = 32 * 2 ** 20;

/**
 * The path of a file below the API.
 * @param {string} id
 * @param {string} path
 */
export function filePath(id, path) {
  return `/v1/experiments/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * Save what an answer holds.
 * @param {string} path
 * @param {string} name
 */
export async function save(path, name) {
  const content = await (await send(path)).blob();
  const url = URL.createObjectURL(content);
  saveFrom(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Save a file of an experiment: a large one by a link that works once, so that it need not fit into the page's memory.
 * @param {string} id
 * @param {{path: string, size: number}} file
 * @param {boolean} writer whether links may be made: viewers may not
 */
export async function saveFile(id, file, writer) {
  const name = file.path.split("/").at(-1) ?? file.path;
  if (file.size < LARGE_BYTES || !writer) return save(filePath(id, file.path), name);
  const { url } = await change(`${filePath(id, file.path)}/link`);
  saveFrom(address(url), name);
}

/**
 * @param {string} url
 * @param {string} name
 */
function saveFrom(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
