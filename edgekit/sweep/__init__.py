"""Many builds of one recipe, and which of them are worth having.

plan     a recipe and what is varied -> points, each a recipe
work     one point built in a process of its own, on a worker
run      points over workers of dask.distributed, each kept once it is done
measure  finished points timed one at a time, in turns with the original
report   what was found as data: accuracy, latency, size, and the Pareto front
page     the same as HTML and Markdown
"""
