"""The pipeline and its lifecycle. `engine` re-exports what is public."""
