"""Programs in Python that do with other libraries what benchmarks measure; each runs by itself."""
