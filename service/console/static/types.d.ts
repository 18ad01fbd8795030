/** What the console reads of the answers of /v1; docs/openapi.json has all of it. */

export interface Progress {
  phase: string;
  step: number;
  total_steps: number;
  epoch: number;
  epochs: number;
  images_per_second: number | null;
  eta_seconds: number | null;
}

export interface Experiment {
  id: string;
  name: string;
  project: string;
  owner: string;
  description: string;
  tags: Record<string, string>;
  priority: number;
  version: number;
  cloned_from: string | null;
  study_id: string | null;
  state: string;
  desired: string;
  reason: string | null;
  message: string;
  actions: string[];
  attempt: number;
  progress: Progress;
  metrics: Record<string, number>;
  summary: Record<string, unknown>;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  mlflow_run_id: string | null;
  files: { bytes: number; checkpoint_bytes: number; measured_at: string | null; pruned: string | null };
  links: { mlflow: string | null };
  spec: Record<string, unknown>;
}

export interface ExperimentPage {
  items: Experiment[];
  next_cursor: string | null;
}

export interface Event {
  seq: number;
  attempt: number;
  from_state: string | null;
  to_state: string;
  reason: string | null;
  message: string;
  by: string;
  at: string;
}

export interface Attempt {
  number: number;
  reason: string | null;
  message: string;
  resumed_from_step: number | null;
  last_step: number;
  node_ids: string[];
  started_at: string;
  ended_at: string | null;
}

export interface Curve {
  name: string;
  /** What the legend says instead of the name. */
  label?: string;
  steps: number[];
  values: (number | null)[];
  times: number[];
}

export interface StoredFile {
  path: string;
  kind: string;
  size: number;
  sha256: string | null;
  modified: string;
}

export interface BulkResult {
  id: string;
  ok: boolean;
  state: string | null;
  problem: { detail?: string; title?: string } | null;
}

export interface Interval {
  low: number | null;
  high: number | null;
}

export interface Comparison {
  id: string;
  name: string;
  project: string;
  owner: string;
  description: string;
  version: number;
  state: string;
  desired: string;
  reason: string | null;
  message: string;
  actions: string[];
  variants: string[];
  control: string;
  metric: string;
  seeds: number;
  trials: {
    waiting: number;
    running: number;
    succeeded: number;
    failed: number;
    cancelled: number;
    deleted: number;
    planned: number;
  };
  created_at: string;
  ended_at: string | null;
}

export interface ComparisonPage {
  items: Comparison[];
  next_cursor: string | null;
}

export interface Pair {
  first: string;
  second: string;
  n: number;
  verdict: string;
  scope: string | null;
  sentence: string;
  differences: number[];
  difference: number | null;
  interval: Interval | null;
  simultaneous: Interval | null;
  anytime: Interval | null;
  p_holm: number | null;
  warnings: string[];
  wins: { wins: number; ties: number; losses: number } | null;
}

export interface Variant {
  name: string;
  is_control: boolean;
  n: number;
  accuracies: number[];
  mean: number | null;
  sd: number | null;
  diverged: number;
  parameters: number | null;
  macs: number | null;
  peak_memory_bytes: number | null;
  images_per_second: number | null;
  runs: {
    block: number;
    seed: number;
    experiment_id: string;
    state: string | null;
    counted: boolean;
    diverged: boolean;
    correct: number | null;
  }[];
}

export interface Result {
  name: string;
  state: string;
  metric: string;
  control: string;
  pairs_judged: string;
  tests: number;
  margin: number | null;
  images: number | null;
  resolution: number | null;
  seeds: { finished: number; planned: number; most: number; rule: string };
  running: boolean;
  hidden: boolean;
  not_comparable: {
    field: string;
    words: string;
    values: { value: string; runs: number; of: string[] }[];
  }[];
  warnings: string[];
  summary: string[];
  variants: Variant[];
  pairs: Pair[];
  conditions: { name: string; value: string }[];
}
