"""`modelops`: what the operator does, at a desk and in pipelines."""
