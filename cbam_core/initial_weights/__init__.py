"""Training from a weights file: what a spec says of it, how it is read, and how it is fitted into a network."""
