"""One torch thread: tests share the machine, and one thread gives the same sums everywhere."""

import torch

torch.set_num_threads(1)
