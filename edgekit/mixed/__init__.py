"""Mixed precision: which nodes of an int8 graph compute in float or dynamically, by what it costs and gains.

Enters: a float graph, the same annotated in int8, images, and what units take on a device. Leaves: a
precision for every node, with what was predicted and measured of it.

    noise     what rounding each result and each weight brings into the outputs
    prices    milliseconds of each node in each precision, and of the conversions between them
    problem   both as numbers: what a choice costs and what noise it leaves
    choose    the choice of least noise within a time: by a MILP, and by greedy steps to compare with
    refit     biases and weights of a graph whose precisions are chosen
    search    a choice that keeps a demand: on the images, or on the clock
"""

from edgekit.mixed.search import Demand, Mixed, mix

__all__ = ["Demand", "Mixed", "mix"]
