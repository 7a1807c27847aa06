"""One network on several ranks, each of which holds a part of its layers."""
