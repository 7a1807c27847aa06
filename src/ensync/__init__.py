"""Ensync trains image classifiers with MPI on CPU clusters, and tells whether to train one
network together or many apart.
"""

__version__ = "0.1.0"
