"""Whether the frameworks on this machine compute the same bits: every element rule, 1,000 steps, each framework by itself.

cases      the rules, options and numbers, and the gradients
frontends  a case in each framework, as a user would write it
worker     one framework in a process of its own: all cases, and what came out, in a file
run        all workers, a few at a time
compare    the files with each other and with float64
command    `polyak bits`: the table
"""
