"""The loop that starts, watches and ends attempts."""
