"""The product attacked at random: `make soak` runs it as long as one likes, `make test-soak` six seconds of each."""
