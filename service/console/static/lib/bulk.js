/**
 * What came of a call about many experiments, in words.
 * @param {number} asked
 * @param {string} done
 * @param {string[]} refused each with its reason
 */
export function told(asked, done, refused) {
  const went = asked - refused.length;
  const words = `${went} of ${asked} ${asked === 1 ? "experiment" : "experiments"} ${done}.`;
  return refused.length === 0 ? words : `${words} Refused: ${refused.join("; ")}`;
}
