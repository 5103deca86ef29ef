"""Settings: one schema, YAML files, layering, and errors a person can act on."""
