"""Puts this folder's helpers, such as `made_up_runs`, on the path of the tests below it."""
