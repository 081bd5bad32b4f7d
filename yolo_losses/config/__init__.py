"""The training keys: declarations, parsing and checks."""
