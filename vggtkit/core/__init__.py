"""What everything stands on.

| module | holds |
|---|---|
| `errors` | the one exception that means "the user can fix this" |
| `registry` | what is registered by name |
| `plugins` | a user's own file that registers more |
| `program` | what the program and its options are called, for messages |
| `atomic` | files and folders that appear complete or not at all |
| `seal` | JSON files that notice a change |
| `trial` | reading a file in a child process first |
| `signature` | files that this user's tool has written itself, which need no trial |
| `locks` | one command at a time in a run folder |
| `interrupts` | Ctrl-C and SIGTERM, in imports too |
| `streams` | standard output that takes any text |
| `escaping` | names and messages out of files, fit for a terminal |
| `journal` | steps that are done, on disk, so that work can be killed any time |
| `command_log` | which commands were run in a run folder |
| `permits` | which functions of the user a run folder may call again |
| `provenance` | what every file says about its origin |
| `arrays` | names for the arrays that functions hand to each other |
| `memory` | memory and disk: what there is, and the refusal of what does not fit |
| `accelerator` | a device that computes beside the processor |
| `allocator` | freed memory stays with the process for a while |
| `executors` | where pieces of work run: here, in processes, on a cluster |
"""
