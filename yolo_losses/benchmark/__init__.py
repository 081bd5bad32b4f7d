"""Time and memory of losses relative to the stock losses."""
