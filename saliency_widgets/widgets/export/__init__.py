"""Output that outlives the kernel: saved pages, image files, stored states and static output."""
