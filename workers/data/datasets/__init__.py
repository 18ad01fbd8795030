"""The datasets by name, and how their files are read."""
