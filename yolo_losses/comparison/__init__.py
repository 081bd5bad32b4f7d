"""Train several losses over several seeds, and tell what difference they make."""
