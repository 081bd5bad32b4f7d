"""The statistics of a comparison: metrics on resampled images, the model over seeds, and the verdict."""
