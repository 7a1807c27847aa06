"""One network learning: batches, steps, evaluation."""
