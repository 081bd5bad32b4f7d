"""The fast path of the class term: autograd, CPU and GPU apart. The formulas do not know it."""
