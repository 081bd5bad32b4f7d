"""What losses cost against stock: time, memory."""
