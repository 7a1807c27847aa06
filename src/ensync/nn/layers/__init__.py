"""The layers, one family a module, and the table of their kinds."""
