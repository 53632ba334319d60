"""The hospital's processes.

`supervisor` starts and watches two children: `supernode` (Flower's SuperNode, which talks to the
coordinator, always outbound) and `worker` (runs the installed ClientApp in a forked child, and no
code that came from outside; `policy` says what it refuses). Every name of Flower's that Flower
doesn't document is in `flower_internals`.
"""
