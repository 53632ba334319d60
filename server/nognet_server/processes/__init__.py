"""The coordinator's processes.

`supervisor` starts and watches two children: `superlink` (Flower's SuperLink behind two
listeners) and `executor` (runs the ServerApp in a forked child). It talks to SuperLink through
`control`. Every name of Flower's that Flower doesn't document is in `flower_internals`.
"""
