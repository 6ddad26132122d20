"""The model's state: private copies of it, its version, hashes of it, and random numbers of its own."""
