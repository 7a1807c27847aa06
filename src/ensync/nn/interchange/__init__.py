"""A network as other programs know it: operations, and arrays in PyTorch's layout."""
