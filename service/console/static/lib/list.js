/** What the address of the list means: the filter and order of /v1/experiments, and the columns. */

export const FILTERS = ["q", "state", "project", "owner", "backbone", "attention", "dataset", "tag", "study"];
export const PAGE_ROWS = 50;

/** Name, words, and what the API sorts by where it can. */
export const COLUMNS = /** @type {{name: string, words: string, sort?: string}[]} */ ([
  { name: "name", words: "Name", sort: "name" },
  { name: "state", words: "State" },
  { name: "progress", words: "Progress" },
  { name: "val", words: "val/top1" },
  { name: "test", words: "test/top1" },
  { name: "created", words: "Submitted", sort: "created_at" },
  { name: "started", words: "Started", sort: "started_at" },
  { name: "ended", words: "Ended", sort: "ended_at" },
  { name: "duration", words: "Duration" },
  { name: "project", words: "Project" },
  { name: "owner", words: "Owner" },
  { name: "priority", words: "Priority", sort: "priority" },
  { name: "tags", words: "Tags" },
  { name: "size", words: "On disk" },
]);
const SHOWN_FIRST = ["name", "state", "progress", "val", "test", "created", "duration", "project"];

/**
 * The query of the API: what of the page's own the API does not know is left out.
 * @param {URLSearchParams} query
 */
export function apiQuery(query) {
  const asked = new URLSearchParams();
  for (const name of [...FILTERS, "sort", "cursor"]) for (const value of query.getAll(name)) asked.append(name, value);
  asked.set("limit", String(PAGE_ROWS));
  asked.set("spec", "false");
  return asked;
}

/** @param {URLSearchParams} query */
export function isFiltered(query) {
  return FILTERS.some((name) => query.has(name)) || query.has("cursor");
}

/** The names of the columns that are shown. @param {URLSearchParams} query */
export function shownColumns(query) {
  const wanted = query.get("columns")?.split(",") ?? SHOWN_FIRST;
  return COLUMNS.filter(({ name }) => name === "name" || wanted.includes(name));
}

/**
 * What a click on a column's head makes of the order: falling first, then rising.
 * @param {string} sort
 * @param {string | null} now
 */
export function turnedSort(sort, now) {
  return now === `-${sort}` ? sort : `-${sort}`;
}

/**
 * As aria-sort has it.
 * @param {string | undefined} sort
 * @param {string | null} now
 */
export function ariaSort(sort, now) {
  if (!sort) return undefined;
  const order = now ?? "-created_at";
  return order === sort ? "ascending" : order === `-${sort}` ? "descending" : "none";
}
