"""The client's side of sweeps: calls, a handle, what shows where a sweep is."""
