"""What every view shares: the base explorer, controls, the heatmap view, frames, lifetimes."""
