"""The named networks."""
