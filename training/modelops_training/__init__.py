"""Trains, evaluates and registers a predictor with its drift and outlier detectors."""
