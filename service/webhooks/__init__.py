"""Webhooks: who gets them, and their delivery."""
