"""What a spec costs, before it runs."""
