"""The subject of each framework, and how a name or a factory becomes one."""
