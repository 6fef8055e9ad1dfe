"""The whole story on a real cluster: `make demo`."""
