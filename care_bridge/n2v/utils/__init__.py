"""n2v.utils: what notebooks use beside the networks."""
