/** The text of a stream of Server-Sent Events, as the HTML standard has it. */

/** @typedef {{type: string, id: string, data: string}} SentEvent */

/**
 * What takes the next piece of the stream, and gives the events that are whole.
 * @returns {(piece: string) => SentEvent[]}
 */
export function eventParser() {
  let rest = "";
  let event = { type: "message", id: "", data: /** @type {string[]} */ ([]) };
  return (piece) => {
    const found = [];
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== "") {
        take(event, line);
        continue;
      }
      if (event.data.length > 0) found.push({ ...event, data: event.data.join("\n") });
      event = { type: "message", id: "", data: [] };
    }
    return found;
  };
}

/**
 * @param {{type: string, id: string, data: string[]}} event
 * @param {string} line
 */
function take(event, line) {
  const at = line.indexOf(":");
  const name = at < 0 ? line : line.slice(0, at);
  const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
  if (name === "data") event.data.push(value);
  else if (name === "event") event.type = value;
  else if (name === "id") event.id = value;
}
