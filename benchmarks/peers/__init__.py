"""Programs in Python that do with other libraries what the benchmark `packets` measures; each runs by itself."""
