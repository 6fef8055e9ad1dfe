"""Serves a predictor with its drift and outlier detectors; its light half needs only numpy."""
