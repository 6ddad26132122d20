"""Tests of whether a map can be trusted: ablation, deletion and insertion, randomization, stability."""
