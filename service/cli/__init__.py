"""The `cbam` command."""
