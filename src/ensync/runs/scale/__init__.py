"""What a job would take on other numbers of ranks: measured for a minute, predicted, checked."""
