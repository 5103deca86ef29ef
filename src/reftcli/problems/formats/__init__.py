"""File formats: how each kind of row becomes a problem."""
