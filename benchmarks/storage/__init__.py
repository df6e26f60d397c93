"""What a key takes to store, and what each index and storage option costs and gives.

Each module weighs one decision of ``docs/storage.md``, and has a ``compare``.
"""
