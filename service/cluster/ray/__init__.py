"""The adapter to Ray, the only package of the service that imports it."""
