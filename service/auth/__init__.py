"""Tokens, the audit log and rate limits."""
