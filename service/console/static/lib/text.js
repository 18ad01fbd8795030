/** Text from elsewhere, made fit for a page: no terminal escapes, nothing that turns its direction. */

// CSI, OSC and the other escape sequences of terminals (ECMA-48), whole: what they hold is not for people.
const ESCAPES =
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b\]|\u009d)[^\u0007\u001b\u009c\n]*(?:\u0007|\u001b\\|\u009c)?|\u001b[PX^_][^\u001b\n]*(?:\u001b\\)?|\u001b[ -/]*[0-~]?/g;
// As cbam_core.printable has them: C0 but tab and line feed, DEL, C1, separators, direction marks, halves of characters.
const UNPRINTABLE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Text of several lines. Of a line that was overwritten with carriage returns, as progress bars are, its last form.
 * @param {unknown} text
 */
export function plain(text) {
  return String(text ?? "")
    .replace(/\r+\n/g, "\n")
    .replace(/[^\n]*\r(?=[^\n])/g, "")
    .replace(ESCAPES, "")
    .replace(UNPRINTABLE, "");
}

/**
 * Text of one line.
 * @param {unknown} text
 */
export function plainLine(text) {
  return plain(text).replace(/[\t\n]+/g, " ");
}

/**
 * The first line, for where there is room for one.
 * @param {unknown} text
 */
export function firstLine(text) {
  return plain(text).split("\n", 1)[0];
}
