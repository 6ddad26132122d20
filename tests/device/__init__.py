"""The product on a device that is not the CPU: a pretend one in host memory, so that every machine can test it."""
