"""What docs/evidence.md shows: a comparison through the service that survives its machine, each finished run a file."""
