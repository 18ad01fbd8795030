/** The lines of a log that are kept on a page. */

export const MOST_LINES = 5000;

/**
 * The last lines, after some more have come, and how many were left out before them.
 * @param {string[]} lines
 * @param {string[]} more
 * @param {number} dropped
 */
export function tail(lines, more, dropped, most = MOST_LINES) {
  const all = [...lines, ...more];
  const over = Math.max(0, all.length - most);
  return { lines: all.slice(over), dropped: dropped + over };
}

/**
 * The lines that hold some words, in whatever case.
 * @param {string[]} lines
 * @param {string} words
 */
export function found(lines, words) {
  const wanted = words.trim().toLowerCase();
  return wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
}
