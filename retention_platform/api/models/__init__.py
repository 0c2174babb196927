"""What the API answers: one model a path, with units and examples. Field names are the columns of docs/metrics.md.

``null`` means that there is nothing to say (no views, or a video too short for the figure); ``0`` is a measured zero.
Where something is missing as a whole, ``reason`` says why.

base       the types of fields, problems, reasons, and what each answer about one video begins with
service    what this is, and whether it can be used
videos     the catalogue, and the figures of one video
curves     who is still watching: of one video, of its segments, of several beside each other
moments    where people leave, come back and skip
overview   the catalogue at a glance, what is typical, what ran
audience   who watches at the same time, and who watches now
"""
