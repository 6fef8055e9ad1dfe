"""One small Protocol per outside system, its implementations beside it."""
