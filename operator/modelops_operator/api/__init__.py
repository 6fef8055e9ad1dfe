"""The custom resources, the configuration, and the facts that all layers share."""
