"""Where records go when they leave the process. A sink takes every record of an engine, see `engine.Sink`."""
