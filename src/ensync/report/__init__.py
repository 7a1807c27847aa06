"""What a person sees: the console, the history, figures, and the page of a comparison. Called on
rank 0; knows no MPI.
"""
