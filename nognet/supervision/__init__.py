"""Processes that watch over processes: started, restarted with back-off, and never left behind.

`parent` ends a child with its parent, `children` starts and stops them, `events` lets them tell
what they do, `lock` keeps two supervisors out of one folder. Flower is not imported here.
"""
