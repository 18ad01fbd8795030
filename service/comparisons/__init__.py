"""Comparisons: paired seeds of variants, judged by pure statistics and put into words."""
