"""One writer for each file format: finished samples in, a file out. No colours here."""
