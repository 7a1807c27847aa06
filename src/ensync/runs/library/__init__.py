"""What `import ensync` offers to a program: datasets of arrays, and trained runs."""
