"""n2v.internals: how patches are made."""
