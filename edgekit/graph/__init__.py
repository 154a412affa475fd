"""The graph every stage works on: ir, ops, shapes, check, run, file."""
