"""Model deployments as Kubernetes custom resources, and the operator that keeps them true."""
