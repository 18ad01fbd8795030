/**
 * How many workers an experiment has, each with a log.
 * @param {{spec: Record<string, any>}} experiment
 */
export function ranksOf({ spec }) {
  const workers = spec?.resources?.workers ?? 1;
  return typeof workers === "number" ? workers : (workers.max ?? 1);
}
