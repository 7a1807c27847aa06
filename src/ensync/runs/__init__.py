"""A run: from its start through its lifecycle to its result, and what several runs make."""
