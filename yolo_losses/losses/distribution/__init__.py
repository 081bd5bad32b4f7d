"""Losses of the distributions that box sides are predicted as."""
