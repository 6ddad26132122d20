"""Is it to be trusted: ablation, deletion and insertion, randomisation, stability."""
