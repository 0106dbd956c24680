"""What scripts measure: counters, and what later becomes windows. Knows nothing of plugins."""
