"""The wire format that API and client share."""
