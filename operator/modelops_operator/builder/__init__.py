"""From resolved models to a pushed image, without a daemon."""
