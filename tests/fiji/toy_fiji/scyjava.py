"""Stands in for scyjava: remembers what the worker sets, and starts nothing."""

from types import SimpleNamespace

options: list[str] = []

config = SimpleNamespace(
    set_java_constraints=lambda **_: None,
    get_repositories=dict,
    endpoints=[],
    add_option=options.append,
)
