"""Statistics of the losses during training (`loss_stats`): gathering, file and plot."""
