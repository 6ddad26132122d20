"""The product attacked at random: `make soak` runs all of it for as long as one likes, `make test` a minute of each."""
