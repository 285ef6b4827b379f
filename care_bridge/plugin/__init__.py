"""What the CSBDeep plugin does, in NumPy only."""
