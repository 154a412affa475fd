"""What runs model files, one folder each: open, run, read inner values, audit, times."""
