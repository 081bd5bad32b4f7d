"""What the losses of a training did, for `loss_stats`: gathered, written and drawn."""
