"""What steps cost on other numbers of ranks than those at hand: pure arithmetic on measured
times.
"""
