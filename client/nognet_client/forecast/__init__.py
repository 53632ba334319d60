"""What a study would cost this site, from one measured batch: `nognet-client --forecast`.

measured.py  a few steps and one evaluation, really run here
sizes.py     bytes that travel and bytes on disk, from the messages themselves
outlook.py   the whole study: hours, traffic, memory, disk, epsilon, what would be declined
words.py     the same as a table
"""
