"""The coordinator's processes.

`supervisor` starts and watches two children: `superlink` (Flower's SuperLink behind two
listeners) and `executor` (runs the ServerApp in a forked child). It talks to SuperLink through
`control`. The public listener is `listener`, with `admission` (who is heard) and `connections`
(for how long). Every name of Flower's that Flower doesn't document is in `flower_internals`.
"""
