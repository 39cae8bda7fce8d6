"""Several processes that answer lines together.

One process, the dealer, reads, deals lines out and writes the answers in order. Each worker loads the model
once and answers what it is dealt. Workers are started on this machine (``--num-processes``), or are the ranks
of a launch by Accelerate or torchrun; rank 0 is then the dealer and starts a worker of its own.
"""
