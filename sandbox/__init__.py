"""A whole platform on one machine: real Kubernetes, an OCI registry, and an MLflow server."""
