"""Where the time of steps goes: from what the ranks recorded to a table, a trace, a picture."""
