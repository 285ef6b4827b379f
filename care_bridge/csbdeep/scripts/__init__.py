"""csbdeep.scripts: its command line."""
