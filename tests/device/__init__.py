"""Tests on a device that is not the CPU: a pretend accelerator in host memory, which every machine can run."""
