"""Vectors of this host: forms, LLVM code, register tiles. Every other kernel is built on them."""
