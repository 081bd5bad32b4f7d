"""Everything that knows Ultralytics: the hook, a run, and the parts in its criteria."""
