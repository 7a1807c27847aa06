"""Pictures in archives and tables, which are read from their beginning to their end."""
