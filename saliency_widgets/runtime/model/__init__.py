"""The state of a model: private copies, its version, hashes, and separate random numbers."""
