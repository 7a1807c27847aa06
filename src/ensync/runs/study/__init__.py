"""A study: contestants x seeds x rank counts, each a run of its own, under one budget."""
