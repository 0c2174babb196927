"""AI insights: what happens in a video, where and why people leave, what to change, and how to know whether it helped.

Rows of the marts become `facts` (pure); `rules` or a language `model` makes an analysis of them, in one `schema`;
`checks` refuses what the facts do not hold; `store` keeps it. `analyse` puts it together, `alerts` watches for what is
new. It computes no metric that the marts have, and never sends anything about a single viewer anywhere.
"""
