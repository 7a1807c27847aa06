"""A trained run in the formats of other programs, and weights of other programs in a run."""
