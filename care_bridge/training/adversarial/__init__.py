"""Learning with a critic, which tells what a generator gives from what it should give."""
