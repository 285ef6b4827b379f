"""How good, how sure, and compared with what."""
