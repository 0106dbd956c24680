"""What the platform itself finds in application data: pure readers with bounded memory, which a pipeline feeds."""
