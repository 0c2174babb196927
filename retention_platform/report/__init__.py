"""Reports: the marts' figures as a document for people, in Markdown or HTML. Neither computes metrics nor connects.

`queries` says what to read, `facts` gives the rows names, `video` and `digest` make documents of them, `markdown`,
`page` and `drawing` write these. `make` puts it together, and `cli` is the command.
"""
