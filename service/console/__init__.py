"""The web console: static files, and what serves them; it speaks /v1 and nothing else."""
