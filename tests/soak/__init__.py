"""Random attacks on the package: `make soak` runs them for any time, `make test-soak` for six seconds each."""
