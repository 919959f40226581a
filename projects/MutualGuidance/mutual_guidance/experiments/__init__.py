"""Experiments: grids of runs of train_net.py, and tables of their results."""
