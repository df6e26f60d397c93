"""Coverage-guided fuzzing of what clients send: ``python -m benchmarks.fuzz --help``.

Each target of ``targets`` takes bytes, asks the app and an independent, slower reading of the same
bytes, and fails where the two differ or where anything is raised that the contract does not know.
``engine`` runs one target under Atheris (libFuzzer) in a process of its own, with the app's code
instrumented, so that inputs which reach new code are kept and mutated further. No database.
"""
