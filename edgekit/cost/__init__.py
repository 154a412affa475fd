"""What a model costs: counted from its shapes (`static`), measured and predicted on a board (`predict`).

The way of a time: `units` cuts a file into fused units, `measure` times them on a board, `table` keeps
them, `widths` adds narrower ones, `forms` says what lies between, `predict` adds up. `shapes` gives the units
of a file from a graph that is not built.
"""
