"""The local stack behind `cbam up`, and `cbam doctor`."""
