"""
Experiments: grids of runs of train_net.py, and tables of their results.

Nothing is imported here, so that tables and plots need no PyTorch.
"""
