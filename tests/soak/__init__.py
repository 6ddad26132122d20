"""The product attacked at random, for as long as one likes: `make soak` runs all of it, `make test` a minute of each."""
