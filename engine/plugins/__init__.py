"""A script file becomes plugins: blocks, hooks, load and unload, votes. Knows nothing of where events come from."""
