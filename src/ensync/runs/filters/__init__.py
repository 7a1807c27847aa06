"""`ensync describe --filters`: what the first layer of trained networks sees."""
