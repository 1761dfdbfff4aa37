"""What a user can type: one command a module, its options and its one call.

A command is a module with a function of its own name and ``EXAMPLES``, and a line in ``cli.py``.

| module | holds |
|---|---|
| `profile`, `plan`, `evaluate`, `export`, `report`, `demo` | a command each: the steps of a run |
| `pareto`, `audit`, `inspect`, `formats`, `download` | a command each: what else there is to see and to fetch |
| `reproduce` | a command: VGGT-1B's own table beside published figures |
| `tune` | a command: weights of a plan, tuned |
| `reconstruct`, `view` | depth, cameras and points from pictures, in files and in the browser |
| `kernels`, `forecast` | a command each: time and memory of inference, measured and predicted |
| `options` | options that commands share, single and in groups, and the scenes that they ask for |
| `groups` | option groups laid out as options |
| `screen` | tables or JSON, progress, errors in one line |
"""
