"""Losses of the distributions that a box's sides are predicted as."""
