"""What a user can type: one command a module, its options and its one call.

A command is a module with a function of its own name and ``EXAMPLES``, and a line in ``cli.py``.

| module | holds |
|---|---|
| `profile`, `plan`, `evaluate`, `export`, `report`, `formats`, `download`, `demo` | a command each |
| `options` | options that commands share, and the scenes that they ask for |
| `screen` | tables or JSON, progress, errors in one line |
"""
