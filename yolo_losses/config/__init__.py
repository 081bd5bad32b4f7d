"""The training keys: parsed once."""
