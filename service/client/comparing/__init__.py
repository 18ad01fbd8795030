"""The client's side of comparisons: calls, a handle, what shows a result, specs in files."""
