"""What comparisons and sweeps share: rows, trials, decisions, and the controller that makes their next steps."""
