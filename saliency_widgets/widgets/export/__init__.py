"""What leaves the notebook: pages without a kernel, image files, stored states, static output."""
